"""What the README says of networks is done word by word, on hosts with homes of their own."""

import re
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.console import Console, steps
from tests.support.machines import Machine, machines
from tests.support.netns import Lan, TwoLans
from tests.support.pages import section

README = Path(__file__).resolve().parents[2] / 'README.md'
CERTIFICATE = 'dispy-cert.pem'
STAGE = re.compile(
    r'(?:^```console\n.*?^```\n\s*)?^```python\n(.*?)^```$', re.MULTILINE | re.DOTALL
)
PROGRAM = """
import dispy_nb as dispy

def compute():
    return dispy_node_name

{made}
with cluster:
    print(cluster.submit()())
"""


@pytest.mark.netns
@pytest.mark.slow
def test_two_machines_work_together_after_the_steps_of_the_page() -> None:
    page = section(README.read_text(), 'Your own function, on two machines')
    program = re.findall(r'^```python\n(.*?)^```$', README.read_text(), re.MULTILINE | re.DOTALL)[0]
    with Lan(2) as lan, ExitStack() as stack:
        bigbox, laptop = stack.enter_context(machines(*lan, same_key=False))
        console = Console({'bigbox': bigbox, 'laptop': laptop}, stack)
        for step in steps(page):
            written = console.run(step)
            if step.command == 'dispynode':
                assert 'for a program on another machine run `dispy key export` here' in written
        done = laptop.client(program.replace('time.sleep(n)', 'time.sleep(n / 100)'))
    ran = re.findall(r'^(\w+) ran job .*: (\d+)$', done.stdout, re.MULTILINE)
    assert ran == [('h0', str(n)) for n in range(10)]
    assert done.stderr == ''


def follow(stage: re.Match[str], hosts: dict[str, Machine]) -> str:
    """Start what a stage of the page starts, run its program on the laptop, and end it all."""
    laptop = hosts['laptop']
    with ExitStack() as stack:
        console = Console(hosts, stack)
        for step in steps(stage[0]):
            console.run(step)
            if CERTIFICATE in step.command or 'cert new' in step.command:
                for other in hosts.values():  # "copy the file to each machine"
                    if other is not laptop:
                        shutil.copy(laptop.home / CERTIFICATE, other.home)
        made = stage[1].replace(f"'{CERTIFICATE}'", repr(str(laptop.home / CERTIFICATE)))
        return laptop.client(PROGRAM.format(made=made)).stdout.strip()


@pytest.mark.netns(nat=True)
@pytest.mark.slow
def test_each_way_to_nodes_on_other_networks_works_as_the_page_says() -> None:
    page, _, _ = section(README.read_text(), 'On other networks').partition('### SSL')
    with TwoLans(2, 2, nat=True) as net, ExitStack() as stack:
        hosts = stack.enter_context(machines(*net.left, *net.right))
        named = dict(zip(('bigbox', 'relay', 'laptop', 'cloud'), hosts, strict=True))
        names = {f'{name}.example.com': machine.ip for name, machine in named.items()}
        names['gateway.example.com'] = net.router_ip['right']
        for machine in hosts:
            machine.knows(**names)
        for kind in ('tcp', 'udp'):
            net.forward_port(kind, 51348, net.left[0])
        net.forward_port('tcp', 51346, net.left[1])
        ran = [follow(stage, named) for stage in STAGE.finditer(page)]
    assert ran == ['r1', 'l0', 'l0', 'l0']


@pytest.mark.netns
@pytest.mark.slow
def test_ssl_is_used_as_the_page_says() -> None:
    (stage,) = STAGE.finditer(section(README.read_text(), 'SSL'))
    with Lan(2) as lan, machines(*lan) as (bigbox, laptop):
        assert follow(stage, {'bigbox': bigbox, 'laptop': laptop}) == 'h0'

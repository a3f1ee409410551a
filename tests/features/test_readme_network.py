"""The README's way to two machines is gone word by word, on two hosts with homes of their own."""

import re
import textwrap
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.console import Console, steps
from tests.support.machines import machines
from tests.support.netns import Lan
from tests.support.pages import section

README = Path(__file__).resolve().parents[2] / 'README.md'

pytestmark = [pytest.mark.netns, pytest.mark.slow]


def first_program() -> str:
    """Answer the program at the top of the page, whose jobs sleep a hundredth of what it says."""
    blocks = re.findall(r'^```python\n(.*?)^```$', README.read_text(), re.MULTILINE | re.DOTALL)
    return textwrap.dedent(blocks[0]).replace('time.sleep(n)', 'time.sleep(n / 100)')


def test_two_machines_work_together_after_the_steps_of_the_page() -> None:
    page = section(README.read_text(), 'Your own function, on two machines')
    with Lan(2) as lan, ExitStack() as stack:
        bigbox, laptop = stack.enter_context(machines(*lan, same_key=False))
        console = Console({'bigbox': bigbox, 'laptop': laptop}, stack)
        for step in steps(page):
            written = console.run(step)
            if step.command == 'dispynode':
                assert 'for a program on another machine run `dispy key export` here' in written
        done = laptop.client(first_program())
    ran = re.findall(r'^(\w+) ran job .*: (\d+)$', done.stdout, re.MULTILINE)
    assert ran == [('h0', str(n)) for n in range(10)]
    assert done.stderr == ''

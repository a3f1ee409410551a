"""SECURITY.md: its limits are those of the code, and what it says of keys is done word by word."""

import re

import pytest

from nodeserver.core import discovery, relay, relays
from nodeserver.io import anteroom, forwarding, listener, streamlisten, tlsthread, zmqsocket
from nodeserver.io.linkoptions import MSG_TIMEOUT
from nodeserver.services import diagnosis
from nodeserver.wire import limits, manifest, session
from tests.support.machines import machines
from tests.support.netns import Lan
from tests.support.pages import ROOT, rows, section

PAGE = (ROOT / 'SECURITY.md').read_text(encoding='utf-8')
LIMITS = {row[0]: row[1] for row in rows(section(PAGE, 'Limits'))}
_OF_LINKS = limits.Limits()
USED = {
    'connections to a port that have not said who they are': f'{anteroom.MOST_GUESTS}, and '
    f'{anteroom.MOST_OF_A_NETWORK} of one address',
    'time until a greeting': f'({MSG_TIMEOUT:g} s) for the handshake',
    'the same over SSL': f'{tlsthread.MOST_UNPROVEN}, and {tlsthread.MOST_UNPROVEN_OF_ONE} of one',
    'time over SSL, until the secret is proven': f'{tlsthread.HANDSHAKE_SECONDS:g} s',
    'the same at a relay': f'{forwarding.MOST_WAITING}, and {forwarding.MOST_WAITING_OF_ONE} of '
    f'one address (/64), for 5 s; {forwarding.MOST_CARRIED:,} connections',
    'local connections that have not greeted': f'{streamlisten.MOST_UNGREETED}',
    'a frame, also before the handshake': f'{zmqsocket._MAX_FRAME >> 20} MiB',
    'frames of a message': f'{limits.MOST_FRAMES:,}',
    'a manifest of files': f'{manifest.MOST_FILES:,} files, {manifest.MOST_BYTES >> 20} MiB',
    'bytes in flight to a peer': f'{_OF_LINKS.credit >> 20} MiB',
    'a message': f'{_OF_LINKS.largest >> 30} GiB, in parts of {_OF_LINKS.part >> 20} MiB',
    'repeated asking for what is not taken': f'{session._MOST_RESENDS} times',
    'nodes that a program remembers': f'{discovery.MOST_NODES:,}',
    'relays that a program remembers': f'{relays.MOST_RELAYS}, and {relays.MOST_TOLD:,} nodes',
    'programs that a relay serves; nodes that it tells of': f'{relay.MOST_PROGRAMS:,}; ',
    'doctors that a node tries the way back to': f'{diagnosis.MOST_AT_ONCE} at a time',
    'complaints in the log about peers': f'one a minute for each, {listener.LINES_PER} in all',
}


@pytest.mark.parametrize('what', USED)
def test_a_limit_of_the_page_is_that_of_the_code(what: str) -> None:
    assert USED[what] in LIMITS[what]


WHERE = """
import dispy_nb as dispy

def compute():
    return dispy_node_name

cluster = dispy.JobCluster(compute)
job = cluster.submit()
print(job() if job.wait({seconds}) else cluster.explain())
cluster.close(timeout=0, terminate=True)
"""


@pytest.mark.netns
@pytest.mark.slow
def test_a_key_is_changed_on_two_machines_as_the_page_says() -> None:
    said = ' '.join(section(PAGE, 'Keys').split('*To change a key*')[1].split())
    commands = re.findall(r'`(dispy key [^`]+)`', said)
    assert commands == ['dispy key rotate', 'dispy key export', 'dispy key import --replace']
    rotate, export, take = (command.split()[1:] for command in commands)
    with Lan(2) as lan, machines(*lan) as (bigbox, laptop):
        with bigbox.node():
            assert laptop.client(WHERE.format(seconds=20)).stdout == 'h0\n'
            assert bigbox.dispy(*rotate).returncode == 0
            line = bigbox.dispy(*export).stdout
            # a node that runs has the old key until it is started anew
            assert laptop.client(WHERE.format(seconds=20)).stdout == 'h0\n'
        with bigbox.node():
            told = laptop.client(WHERE.format(seconds=1.5)).stdout
            assert f'{bigbox.ip}: uses another key' in told
            assert laptop.dispy(*take, text=line).returncode == 0
            assert laptop.client(WHERE.format(seconds=20)).stdout == 'h0\n'
        old = bigbox.home / '.config' / 'dispy-nb' / 'key.old'
        assert old.stat().st_mode & 0o777 == 0o600

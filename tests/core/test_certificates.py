"""What a scheduler makes of nodes that use SSL or do not, and of a certificate that ends."""

import pytest

from nodeserver.core import messages as m
from nodeserver.core.effects import Connect
from nodeserver.core.events import CertificateExpiring, NodeFound
from nodeserver.core.scheduler import SchedulerCore
from tests.support.desk import CLIENT, Desk
from tests.support.world import declaration


def desk_of(is_tls: bool) -> Desk:
    desk = Desk()
    desk.core = SchedulerCore(is_tls)
    desk.hears(CLIENT, declaration())
    desk.effects.clear()
    return desk


@pytest.mark.parametrize(
    ('ours', 'theirs', 'words'),
    [
        (False, True, 'it uses SSL, and this side was given no certificate: give certfile'),
        (True, False, 'it does not use SSL, and this side was given a certificate: start it with'),
    ],
)
def test_a_node_that_differs_in_ssl_is_not_connected_to_and_the_reason_is_told(
    ours: bool, theirs: bool, words: str
) -> None:
    desk = desk_of(ours)
    desk.tell(NodeFound('a', '10.0.0.1', 51348, '', is_tls=theirs))
    desk.hears(CLIENT, declaration(computation=8))  # looks at the nodes that are known
    assert not [effect for effect in desk.effects if isinstance(effect, Connect)]
    assert words in desk.explained()


@pytest.mark.parametrize('is_tls', [False, True])
def test_a_node_that_is_like_us_is_connected_to(is_tls: bool) -> None:
    desk = desk_of(is_tls)
    desk.tell(NodeFound('a', '10.0.0.1', 51348, '', is_tls=is_tls))
    assert [effect.node for effect in desk.effects if isinstance(effect, Connect)] == ['a']


def test_every_cluster_is_told_that_the_certificate_ends_until_it_is_renewed() -> None:
    desk = desk_of(True)
    desk.tell(CertificateExpiring('it ends'))
    assert [notice.computation for notice in desk.sent(m.Notice)] == [7]
    desk.hears(CLIENT, declaration(computation=8))
    assert [(n.computation, n.text) for n in desk.sent(m.Notice)] == [(8, 'it ends')]
    desk.tell(CertificateExpiring(''))
    desk.hears(CLIENT, declaration(computation=9))
    assert desk.sent(m.Notice) == []

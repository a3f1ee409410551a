"""The packets of discovery say what they should, and nothing to those without the key."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeserver.wire import beacon

KEY, OTHER = bytes(range(32)), bytes(32)
NONCE = bytes(range(16))
ASKER = beacon.Asker('0123456789abcdef' * 2, beacon.Role.CLIENT)
CONTACT = beacon.NodeContact('fedcba9876543210' * 2, 51348, b'f' * 16, 'node-51348.sock')
LONGEST = beacon.NodeContact(
    '0' * 32,
    65535,
    b'f' * 16,
    'n' * beacon.LOCAL_NAME_LIMIT,
    'h' * beacon.HOST_LIMIT,
    beacon.Flag.TLS | beacon.Flag.RELAY,
    (1 << 32) - 1,
)
CALLBACK = beacon.Callback(('198.51.100.7', 'fd77:1::10', 'fe80::1%eth0', 'gw.example.org'), 51347)
PACKETS = [
    beacon.encode_ping(NONCE, ASKER, KEY),
    beacon.encode_pong(NONCE, CONTACT, KEY),
    beacon.encode_here(NONCE, CONTACT, KEY),
]


def test_packets_come_back_as_they_were() -> None:
    ping, pong, here = (beacon.decode(packet, KEY) for packet in PACKETS)
    assert ping == beacon.Ping(NONCE, ASKER)
    assert pong == beacon.Pong(NONCE, CONTACT)
    assert here == beacon.Here(CONTACT)
    assert beacon.decode(beacon.OTHER_KEY_PACKET, KEY) == beacon.OtherKey()


def test_no_answer_is_larger_than_what_it_answers() -> None:
    ping, _, here = PACKETS
    pong = beacon.encode_pong(NONCE, LONGEST, KEY)
    assert beacon.decode(pong, KEY) == beacon.Pong(NONCE, LONGEST)
    assert len(pong) <= len(ping) == len(here) == beacon.PADDED_SIZE
    assert len(beacon.OTHER_KEY_PACKET) < len(pong)


@pytest.mark.parametrize('key', [OTHER, beacon.INSECURE_KEY])
def test_packet_under_another_key_is_recognised_and_not_read(key: bytes) -> None:
    kinds = [beacon.Kind.PING, beacon.Kind.PONG, beacon.Kind.HERE]
    assert [beacon.decode(packet, key) for packet in PACKETS] == [
        beacon.WrongKey(kind) for kind in kinds
    ]


@pytest.mark.parametrize('packet', PACKETS)
def test_every_byte_of_a_packet_is_authenticated(packet: bytes) -> None:
    for place in range(len(packet)):
        changed = bytearray(packet)
        changed[place] ^= 1
        assert isinstance(beacon.decode(bytes(changed), KEY), beacon.WrongKey | None)


@pytest.mark.parametrize('name', ['../key', 'a/b', '.hidden', 'a\0b', '/tmp/x'])
def test_socket_name_stays_in_its_directory(name: str) -> None:
    contact = beacon.NodeContact('0' * 32, 1, b'f' * 16, name)
    with pytest.raises(ValueError, match='plain file name'):
        beacon.encode_pong(NONCE, contact, KEY)


@given(st.binary(max_size=300))
def test_noise_is_not_ours(data: bytes) -> None:
    assert beacon.decode(data, KEY) is None


@given(st.sampled_from((1, 2, 3, 4, 5)), st.binary(min_size=235, max_size=235))
def test_noise_behind_our_head_never_raises(kind: int, body: bytes) -> None:
    head = b'dnb\x02' + bytes((kind,))
    assert isinstance(beacon.decode(head + body + b'm' * 16, KEY), beacon.WrongKey | None)
    sealed = beacon._sealed(beacon.Kind(min(kind, 3)), body, KEY, padded=True)
    packet = beacon.decode(sealed, KEY)
    assert packet is None or isinstance(packet, beacon.Ping | beacon.Pong | beacon.Here)


def test_a_ping_says_where_nodes_are_to_connect_to() -> None:
    packet = beacon.encode_ping(NONCE, ASKER, KEY, CALLBACK)
    assert beacon.decode(packet, KEY) == beacon.Ping(NONCE, ASKER, CALLBACK)
    assert len(packet) == beacon.PADDED_SIZE


@pytest.mark.parametrize('host', ['a b', 'a,b', '', '-x', '%eth0', 'a/b', 'x' * 200])
def test_what_is_no_host_is_not_sent(host: str) -> None:
    callback = beacon.Callback(('fine.example.org', host), 1)
    with pytest.raises(ValueError, match='do not fit'):
        beacon.encode_ping(NONCE, ASKER, KEY, callback)
    if host:
        contact = beacon.NodeContact('0' * 32, 1, b'f' * 16, '', host)
        with pytest.raises(ValueError, match='ext_host'):
            beacon.encode_pong(NONCE, contact, KEY)


def test_a_node_is_asked_to_look_few_names_up() -> None:
    hosts = tuple(f'gate{number}' for number in range(beacon.MOST_CALLBACK_HOSTS + 1))
    with pytest.raises(ValueError, match='do not fit'):
        beacon.encode_ping(NONCE, ASKER, KEY, beacon.Callback(hosts, 1))
    text = ','.join(hosts).encode()
    body = beacon._PING.pack(NONCE, bytes.fromhex(ASKER.peer), ASKER.role, 1, len(text)) + text
    assert beacon.decode(beacon._sealed(beacon.Kind.PING, body, KEY, padded=True), KEY) is None


def test_cut_packets_are_not_ours() -> None:
    for packet in PACKETS:
        for length in range(len(packet)):
            assert isinstance(beacon.decode(packet[:length], KEY), beacon.WrongKey | None)


def test_two_pings_differ() -> None:
    first, second = (beacon.encode_ping(os.urandom(16), ASKER, KEY) for _ in range(2))
    assert first != second

"""What is fuzzed of what strangers and machines elsewhere send: readers, and correct inputs."""

import base64

from dispy_nb.doctor.facts import LinkAnswer, NodeFacts, TcpAnswer, UdpAnswer
from dispy_nb.doctor.judgenode import judge_node
from nodeserver.core.diagnosis import Reach
from nodeserver.core.errors import PeerRefused
from nodeserver.io import reaching
from nodeserver.wire import beacon, carriage, codec, errands, proof, x509
from tests.wire.test_codec import _example

ME, YOU = 'a' * 32, 'b' * 32
KEY = bytes(range(32))

# beacons


def beacons() -> list[bytes]:
    asker = beacon.Asker(ME, beacon.Role.CLIENT)
    contact = beacon.NodeContact('0' * 32, 51348, b'f' * 16, 'node')
    there = beacon.Callback(('gate.example.org', 'fe80::1%eth0'), 51347)
    flags = beacon.Flag.TLS | beacon.Flag.RELAY
    outside = beacon.NodeContact('0' * 32, 1, b'f' * 16, '', 'gate.example.org', flags, 1 << 31)
    return [
        beacon.encode_ping(bytes(16), asker, KEY),
        beacon.encode_ping(bytes(16), asker, KEY, there),
        beacon.encode_pong(bytes(16), contact, KEY),
        beacon.encode_pong(bytes(16), outside, KEY),
        beacon.encode_here(bytes(16), contact, KEY),
        beacon.OTHER_KEY_PACKET,
    ]


def read_beacon(data: bytes) -> object:
    return beacon.decode(data, KEY)


def read_sealed_beacon(data: bytes) -> object:
    """Seal the input again: damage reaches what stands behind the authenticator."""
    text = data[: -beacon._MAC_SIZE]
    return beacon.decode(text + beacon._authenticator(text, KEY), KEY)


# connections over TLS, and those that are carried


_HELLO = carriage.Hello(ME, b'n' * carriage.NONCE_SIZE)
_CHALLENGE = b'c' * carriage.NONCE_SIZE


def requests() -> list[bytes]:
    hello = carriage.write_hello(_HELLO.program, _HELLO.nonce)
    return [hello + carriage.write_request(_HELLO, _CHALLENGE, YOU, KEY), hello]


def read_request(data: bytes) -> object:
    """Ask to be carried: nobody may who has changed a bit of what was proven."""
    hello = carriage.read_hello(data[: carriage.HELLO_SIZE])
    if hello is None:
        return None
    request = carriage.read_request(data[carriage.HELLO_SIZE :])
    if carriage.is_proven(hello, _CHALLENGE, request, KEY):
        assert data == requests()[0], 'a request was believed that nobody has made'
    return request


_CONNECTION = proof.Connection(b'channel', b's' * 32, b'c' * 32)
_OURS, _THEIRS = b'o' * proof.NONCE_SIZE, b't' * proof.NONCE_SIZE


def proofs() -> list[bytes]:
    """Say what a client says to a server, and a server to a client: role, then both messages."""
    client = proof.ClientProof(KEY, _THEIRS, _CONNECTION)
    answer = proof.ServerProof(KEY, _OURS, _CONNECTION).answer(client.hello())
    server = proof.ServerProof(KEY, _THEIRS, _CONNECTION)
    ours = proof.ClientProof(KEY, _OURS, _CONNECTION)
    return [
        b's' + client.hello() + client.prove(answer)[0],
        b'c' + server.answer(ours.hello()),
    ]


def read_proof(data: bytes) -> object:
    """Prove the secret: nobody may who has changed a bit of it."""
    role, said = data[:1], data[1:]
    try:
        if role == b's':
            server = proof.ServerProof(KEY, _OURS, _CONNECTION)
            server.answer(said[: proof.HELLO_SIZE])
            is_good = server.verdict(said[proof.HELLO_SIZE :])[1]
        else:
            client = proof.ClientProof(KEY, _OURS, _CONNECTION)
            is_good = client.prove(said)[1]
            proof.is_accepted(said)
    except PeerRefused:
        return None
    if is_good:
        assert said in [seed[1:] for seed in proofs()], 'a proof was believed that nobody gave'
    return is_good


def certificates() -> list[bytes]:
    return [base64.b64decode(_CERTIFICATE)]


def read_certificate(data: bytes) -> object:
    """Read a certificate that somebody shows, or that is in a file."""
    try:
        facts = x509.read_certificate(data)
    except ValueError:
        return None
    assert len(facts.subject) <= 200
    assert (facts.subject + facts.issuer).isprintable()
    return facts.serves_both_ways or facts


_CERTIFICATE = """
MIIBtzCCAV6gAwIBAgIUEex33i0JYbWEoCGFOiyneN0PE/0wCgYIKoZIzj0EAwIwIjENMAsGA1UECgwEb3VyczER
MA8GA1UEAwwIZGlzcHktbmIwHhcNMjYxMTI5MTYzNTQ1WhcNMjkwODI1MTYzNTQ1WjAiMQ0wCwYDVQQKDARvdXJz
MREwDwYDVQQDDAhkaXNweS1uYjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABHI+Y5AcMkOcvaRbffmDMAitDSa6
qbhf9dYLMvpQtgj0n+S4tSZoklUnVaglnyPRm9eO68yE4Zg1+Q8/2QS5vQajcjBwMB0GA1UdDgQWBBQz6xpcm7oC
1+nkrEOGdDgruC+KUjAfBgNVHSMEGDAWgBQz6xpcm7oC1+nkrEOGdDgruC+KUjAPBgNVHRMBAf8EBTADAQH/MB0G
A1UdJQQWMBQGCCsGAQUFBwMBBggrBgEFBQcDAjAKBggqhkjOPQQDAgNHADBEAiBishscmGEAZKi6KdrUSIClbv1Q
s7Ppipkt4okTGcPY9AIgdhf/WcRH6AjeyGAqDrzLB5KxKzI7lbegZ4m9dts0nnk=
"""


# what a node orders of its deputy


def orders() -> list[bytes]:
    return [
        errands.encode_signal(15, 0),
        errands.encode_signal(9, 4711),
        errands.encode_removal(b'/tmp/prefix/gate/files'),
    ]


def read_errand(data: bytes) -> object:
    if data[:1] == errands.SIGNAL:
        return errands.decode_signal(data)
    return errands.decode_removal(data)


# what a doctor is told


def diagnoses() -> list[bytes]:
    return [codec.encode(_example(codec.messages.Diagnosis))[0]]


def read_diagnosis(data: bytes) -> object:
    """Judge what a node says of itself, and write it for people."""
    message = codec.decode([data])
    if not isinstance(message, codec.messages.Diagnosis):
        return None
    link = LinkAnswer(True, '', message, message.clock, token_came=False)
    udp, tcp = UdpAnswer(Reach.OPEN, 51348), TcpAnswer(Reach.OPEN, 51348)
    for finding in judge_node(NodeFacts('host', '10.0.0.1', 51348, True, udp, tcp, link)):
        assert finding.line().isprintable()
        assert len(finding.line()) <= 5000, 'a line without end'
    return message


def first_words() -> list[bytes]:
    mechanism = b'CURVE'.ljust(20, b'\0')
    return [reaching.GREETING + b'\1' + mechanism + bytes(32), b'SSH-2.0-OpenSSH_9.2\r\n']


def read_first_words(data: bytes) -> object:
    return reaching.mechanism(data) or None

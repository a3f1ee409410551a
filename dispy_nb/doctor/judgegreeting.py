"""What became of the greeting: certificate, key, insecure, protocol; pure."""

from typing import Final

from dispy_nb.doctor.facts import LinkAnswer, NodeFacts, TcpAnswer
from dispy_nb.doctor.findings import Fault, Finding, Level, fine
from dispy_nb.doctor.judgeprogram import TAKES_NODES
from nodeserver.core.explain import KEY_ADVICE
from nodeserver.wire.proof import OTHER_SECRET

_SAME_PAIR: Final = (
    'give both sides the same pair: dispynode --certfile F --keyfile F, JobCluster(certfile=, '
    'keyfile=), and here --certfile and --keyfile'
)
_OR_NONE: Final = f'{_SAME_PAIR}; or none to both'
_RENEW: Final = (
    'make another by `dispy cert new --replace`, and copy it over the old one on all machines'
)
_SET_CLOCKS: Final = 'set the clocks of both machines: `timedatectl set-ntp true`'
_ASKS_FOR_KEY: Final = 'it asks for a key, and this side runs insecure, without one'
_IS_INSECURE: Final = 'it runs insecure, without a key, and this side has one'
_OTHER_KEY: Final = 'it has another key, or none'
_TLS_ALERT: Final = 0x15  # the first byte of what TLS answers to what is none


def judge_greeting(facts: NodeFacts) -> list[Finding]:
    """Judge who this is to us, and who we are to it."""
    found = _judge_use_of_tls(facts)
    if facts.link is not None:
        found += judge_link(facts, facts.link)
    if facts.udp.other_key and not any(each.check == 'key' for each in found):
        found.append(_other_key(facts, 'it has another key'))
    return found


def is_tls(tcp: TcpAnswer) -> bool:
    """Whether a port answers as TLS does."""
    return tcp.is_tls or tcp.words[:1] == bytes((_TLS_ALERT,))


def _judge_use_of_tls(facts: NodeFacts) -> list[Finding]:
    """Judge whether one side only uses TLS."""
    kind = facts.certificate.kind
    if facts.udp.is_tls or is_tls(facts.tcp):
        if kind == 'usable':
            return []
        words = 'it uses SSL, and this side was given no certificate'
        advice = _SAME_PAIR
        if kind == 'unusable':
            words = "it uses SSL, and this machine's certificate cannot be used"
            advice = 'see what is said of it above'
    elif kind and (facts.tcp.is_zeromq or facts.udp.port):
        words = 'it does not use SSL, and this side was given a certificate'
        advice = _OR_NONE
    else:
        return []
    return [finding_there(facts, 'certificate', Fault.KEYS, words, advice)]


def judge_link(facts: NodeFacts, link: LinkAnswer) -> list[Finding]:
    """Judge the handshake."""
    if link.connected:
        words = 'insecure on both sides' if facts.key.kind == 'insecure' else 'the same as here'
        found = [fine('key', words, facts.where)]
        if facts.certificate.kind:
            found.insert(0, fine('certificate', 'the same as here', facts.where))
        if link.diagnosis is None and link.relay is None:
            words = 'it greets, and does not say how it is'
            advice = 'install the same release of dispy-nb there, or look at its log'
            found.append(
                finding_there(facts, 'versions', Fault.VERSIONS, words, advice, Level.WARNING)
            )
        return found
    if not link.refusal:
        words = 'its port is open, and it does not answer a greeting in time'
        advice = 'look at its log; on a slow network try --timeout 10'
        return [finding_there(facts, 'greeting', Fault.REACH, words, advice)]
    return [_judge_refusal(facts, _made_sure(facts, link.refusal))]


def _made_sure(facts: NodeFacts, reason: str) -> str:
    """Say no more than is known from what was said first: a refusal does not always tell."""
    if facts.certificate.kind or not facts.tcp.is_zeromq:
        return reason
    if facts.key.kind == 'insecure':
        return _ASKS_FOR_KEY if facts.tcp.mechanism == 'CURVE' else reason
    if facts.tcp.mechanism == 'NULL':
        return _IS_INSECURE
    return _OTHER_KEY if reason.startswith(_OTHER_KEY) else reason


def _judge_refusal(facts: NodeFacts, reason: str) -> Finding:
    if TAKES_NODES in reason:
        words = 'the same as here; a program waits there for nodes to connect'
        return fine('key', words, facts.where)
    if reason == OTHER_SECRET:
        return _other_key(facts, 'it has the same certificate and another key')
    if any(word in reason for word in ('certificate', 'SSL', 'TLS')):
        return finding_there(facts, 'certificate', Fault.KEYS, reason, _certificate_advice(reason))
    if 'insecure' in reason:
        advice = (
            'both sides must be alike: leave --insecure (insecure=True) out on both, or for a '
            'test on a network of your own give it to both'
        )
        return finding_there(facts, 'key', Fault.KEYS, reason, advice)
    if 'protocol version' in reason:
        advice = 'install the same release of dispy-nb on both machines'
        return finding_there(facts, 'versions', Fault.VERSIONS, reason, advice)
    if 'key' in reason:
        return _other_key(facts, reason)
    return finding_there(facts, 'greeting', Fault.REACH, f'it refuses: {reason}', 'look at its log')


def _certificate_advice(reason: str) -> str:
    """Say what to do about a certificate that one of both sides refuses."""
    if 'expired' in reason:
        return _RENEW
    if 'not valid yet' in reason:
        return _SET_CLOCKS
    return _SAME_PAIR


def _other_key(facts: NodeFacts, reason: str) -> Finding:
    kind = facts.key.kind
    level = Level.PROBLEM if facts.was_named else Level.WARNING
    advice = f'if it is yours: {KEY_ADVICE}; then start dispynode anew'
    if kind == 'unusable':
        reason = "a key is needed, and this machine's cannot be used"
        advice = 'see what is said of it above'
    elif kind == 'none yet':
        reason = 'it has a key, and this machine has none yet'
    return finding_there(facts, 'key', Fault.KEYS, reason, advice, level)


def finding_there(
    facts: NodeFacts,
    check: str,
    fault: Fault,
    found: str,
    advice: str,
    level: Level = Level.PROBLEM,
) -> Finding:
    """Say what was found of the node, relay or program that was looked at."""
    return Finding(check, level, fault, found, advice, facts.where)

"""What is wrong with a certificate is said at the start, with the file and what to do."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeserver.core.errors import CertificateError, UsageError
from nodeserver.io.certificate import (
    Certificate,
    choose_certificate,
    expiry_words,
    first_certificate,
    load_pair,
    unfitness,
)
from nodeserver.io.keys import NO_SECRET
from nodeserver.wire.x509 import CertificateFacts, read_certificate
from tests.support.certificates import needs_openssl, openssl, self_signed, signed_by_ca

pytestmark = needs_openssl

_DAY = 86400.0


def _encrypted(path: Path) -> Path:
    key = path.with_suffix('.key')
    openssl('genpkey', '-algorithm', 'RSA', '-aes128', '-pass', 'pass:x', '-out', key)
    openssl('req', '-x509', '-key', key, '-passin', 'pass:x', '-subj', '/CN=x', '-out', path)
    path.write_text(path.read_text() + key.read_text())
    return path


def _for_servers_only(path: Path) -> Path:
    return self_signed(path, 'x', 9, '-addext', 'extendedKeyUsage=serverAuth')


def _other_key(path: Path) -> Path:
    other = self_signed(path.with_name('other.pem'))
    certificate = first_certificate(self_signed(path))
    key, _, _ = other.read_text().partition('-----BEGIN CERT')
    path.write_text(certificate + key)
    return path


def _der(path: Path) -> Path:
    openssl('x509', '-in', self_signed(path), '-outform', 'DER', '-out', path)
    return path


def _without_key(path: Path) -> Path:
    path.write_text(first_certificate(self_signed(path)))
    return path


def _damaged(path: Path) -> Path:
    path.write_text('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n')
    return path


def _large(path: Path) -> Path:
    path.write_bytes(bytes(2 << 20))
    return path


def _for_no_exchange(path: Path) -> Path:
    return self_signed(path, 'x', 9, '-addext', 'keyUsage=critical,cRLSign')


def _weak(path: Path) -> Path:
    openssl(
        *('req', '-x509', '-newkey', 'rsa:1024', '-nodes', '-subj', '/CN=x'),
        *('-keyout', path, '-out', path),
    )
    return path


WRONG: list[tuple[Callable[[Path], Path], str]] = [
    (lambda path: path, 'cannot be read: No such file or directory. A pair is made by'),
    (lambda path: path.parent, 'cannot be read: Is a directory'),
    (_encrypted, r'is encrypted, and .*openssl pkey -in .* -out plainkey.pem'),
    (_for_servers_only, 'is for serverAuth only, and each side needs serverAuth and clientAuth'),
    (_other_key, 'is not that of the certificate in'),
    (_der, r'holds no certificate in PEM .*openssl x509 -inform DER'),
    (_without_key, 'holds no private key that can be read: append it, or give its file as keyfile'),
    (_damaged, 'is damaged'),
    (_large, 'is larger than any certificate'),
    (_for_no_exchange, 'cannot be used for SSL in both directions'),
    (_weak, 'too weak'),
]


@pytest.mark.parametrize(('make', 'words'), WRONG)
def test_each_defect_is_one_clear_error(
    make: Callable[[Path], Path], words: str, tmp_path: Path
) -> None:
    path = make(tmp_path / 'pair.pem')
    with pytest.raises(CertificateError, match=words) as caught:
        Certificate(str(path))
    assert str(path) in str(caught.value)
    assert 'PRIVATE' not in str(caught.value)


def test_the_key_file_is_named_where_it_is_the_one_that_is_wrong(tmp_path: Path) -> None:
    certfile = self_signed(tmp_path / 'pair.pem')
    with pytest.raises(CertificateError, match=r'nokey.pem cannot be read: No such file'):
        Certificate(str(certfile), str(tmp_path / 'nokey.pem'))
    (tmp_path / 'key.pem').write_text('nothing')
    with pytest.raises(CertificateError, match=r'key.pem holds no private key in PEM'):
        Certificate(str(certfile), str(tmp_path / 'key.pem'))


def test_an_expired_certificate_and_one_of_tomorrow_are_refused_with_their_dates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = self_signed(tmp_path / 'pair.pem', days=2)
    now = time.time()
    monkeypatch.setattr(time, 'time', lambda: now + 3 * _DAY)
    with pytest.raises(CertificateError, match=r'expired on \d{4}-\d\d-\d\d .*cert new --replace'):
        load_pair(path, path)
    monkeypatch.setattr(time, 'time', lambda: now - _DAY)
    with pytest.raises(CertificateError, match=r'not valid before .*is the clock'):
        load_pair(path, path)


def test_expiry_is_told_thirty_days_ahead() -> None:
    facts = CertificateFacts('CN=x', 'CN=x', 0.0, 100 * _DAY, None)
    assert expiry_words(facts, 69.9 * _DAY, 'cert.pem') == ''
    assert 'cert.pem expires in 29 days, on 1970-04-11' in expiry_words(
        facts, 70.5 * _DAY, 'cert.pem'
    )
    assert 'expires in 1 day, on' in expiry_words(facts, 98.5 * _DAY, 'cert.pem')
    assert 'expired on 1970-04-11' in expiry_words(facts, 101 * _DAY, 'cert.pem')
    assert unfitness(facts, 50 * _DAY) == ''


def test_facts_are_those_that_openssl_wrote(tmp_path: Path) -> None:
    more = ('-addext', 'extendedKeyUsage=serverAuth,clientAuth')
    facts = load_pair(*[self_signed(tmp_path / 'pair.pem', 'Some Cluster', 10, *more)] * 2).facts
    assert facts.subject == facts.issuer == 'CN=Some Cluster'
    assert facts.uses == {'serverAuth', 'clientAuth'}
    assert facts.ends - facts.begins == 10 * _DAY
    assert abs(facts.begins - time.time()) < 60
    (signed,) = signed_by_ca(tmp_path, 'leaf')
    facts = load_pair(signed, signed).facts
    assert (facts.subject, facts.issuer, facts.uses) == ('CN=leaf', 'CN=the CA', None)


@given(st.binary(max_size=300))
def test_what_is_no_certificate_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r'.'):
        read_certificate(data)


def test_contradictions_are_refused() -> None:
    assert choose_certificate(None, None) is None
    with pytest.raises(UsageError, match='is the key of a certfile, which is missing'):
        choose_certificate(None, 'key.pem')
    with pytest.raises(UsageError, match='certfile and insecure contradict each other'):
        choose_certificate('cert.pem', None, insecure=True)
    with pytest.raises(UsageError, match='no secret to be proven'):
        NO_SECRET.proof_key()


def test_a_key_that_others_can_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = self_signed(tmp_path / 'pair.pem')
    path.chmod(0o644)
    choose_certificate(str(path), None)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f'chmod 600 {path}' in record.getMessage()

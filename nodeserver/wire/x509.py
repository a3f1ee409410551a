"""What a certificate says of itself: the few fields that people are told about.

Only for words and warnings: whether a certificate is to be trusted is decided by OpenSSL.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from nodeserver.core.values import value

_SEQUENCE: Final = 0x30
_OBJECT_ID: Final = 0x06
_OCTETS: Final = 0x04
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18
_VERSION: Final = 0xA0
_EXTENSIONS: Final = 0xA3
_TEXT_LIMIT: Final = 200
_NAMES: Final = {b'\x55\x04\x03': 'CN', b'\x55\x04\x0a': 'O', b'\x55\x04\x0b': 'OU'}
_EXTENDED_USE: Final = b'\x55\x1d\x25'
_USES: Final = {
    b'\x2b\x06\x01\x05\x05\x07\x03\x01': 'serverAuth',
    b'\x2b\x06\x01\x05\x05\x07\x03\x02': 'clientAuth',
    b'\x55\x1d\x25\x00': 'any',
}


@value
class CertificateFacts:
    """Whose a certificate is, when it is valid (seconds since the epoch), and for what.

    `uses` is None where the certificate does not restrict them.
    """

    subject: str
    issuer: str
    begins: float
    ends: float
    uses: frozenset[str] | None

    @property
    def serves_both_ways(self) -> bool:
        """Whether its owner may both listen and connect with it."""
        return self.uses is None or 'any' in self.uses or {'serverAuth', 'clientAuth'} <= self.uses


def read_certificate(der: bytes) -> CertificateFacts:
    """Read a certificate in DER; a `ValueError` for what is none."""
    whole = _only(der, _SEQUENCE)
    fields = list(_elements(_only(whole, _SEQUENCE, alone=False)))
    if fields and fields[0][0] == _VERSION:
        del fields[0]
    if len(fields) < 6:
        raise ValueError('a certificate of too few fields')
    begins, ends = _validity(fields[3][1])
    extensions = next((content for tag, content in fields[6:] if tag == _EXTENSIONS), b'')
    return CertificateFacts(
        _name(fields[4][1]), _name(fields[2][1]), begins, ends, _uses(extensions)
    )


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and the content of each element."""
    at = 0
    while at < len(data):
        tag, begin, end = _element(data, at)
        yield tag, data[begin:end]
        at = end


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    if at + 2 > len(data):
        raise ValueError('a certificate that is cut off')
    tag, length, begin = data[at], data[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4 or begin + count > len(data):
            raise ValueError('a certificate with a wrong length in it')
        length, begin = int.from_bytes(data[begin : begin + count]), begin + count
    if begin + length > len(data):
        raise ValueError('a certificate that is cut off')
    return tag, begin, begin + length


def _only(data: bytes, wanted: int, *, alone: bool = True) -> bytes:
    """Return the content of the first element, which is of this kind and, if `alone`, all."""
    tag, begin, end = _element(data, 0)
    if tag != wanted or (alone and end != len(data)):
        raise ValueError('no certificate')
    return data[begin:end]


def _validity(data: bytes) -> tuple[float, float]:
    moments = [_moment(tag, content) for tag, content in _elements(data)]
    if len(moments) != 2:
        raise ValueError('a certificate without a time of validity')
    return moments[0], moments[1]


def _moment(tag: int, content: bytes) -> float:
    text = content.decode('ascii')
    if tag == _UTC_TIME:  # two digits of the year: from 1950 to 2049
        text = ('19' if text[:2] >= '50' else '20') + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError('a certificate with a time of another kind')
    return datetime.strptime(text, '%Y%m%d%H%M%SZ').replace(tzinfo=UTC).timestamp()


def _name(data: bytes) -> str:
    """Write a name as people do: `CN=..., O=...`; what is not printable is replaced."""
    parts = []
    for _, pairs in _elements(data):
        for _, pair in _elements(pairs):
            fields = list(_elements(pair))
            if len(fields) == 2 and fields[0][1] in _NAMES:
                parts.append(f'{_NAMES[fields[0][1]]}={fields[1][1].decode(errors="replace")}')
    text = ', '.join(parts)[:_TEXT_LIMIT]
    return ''.join(char if char.isprintable() else '?' for char in text) or '(no name)'


def _uses(extensions: bytes) -> frozenset[str] | None:
    for _, listed in _elements(extensions):
        for _, extension in _elements(listed):
            fields = list(_elements(extension))
            if len(fields) < 2 or fields[0] != (_OBJECT_ID, _EXTENDED_USE):
                continue
            if fields[-1][0] != _OCTETS:
                raise ValueError('a certificate with a malformed extension')
            kinds = _elements(_only(fields[-1][1], _SEQUENCE))
            return frozenset(_USES.get(content, 'another') for _, content in kinds)
    return None

"""A job's outcome, written by its process and read by its client; nobody between opens it."""

import msgspec

from nodeserver.core.errors import ProtocolError
from nodeserver.wire.codec import MALFORMED
from nodeserver.wire.packed import Buffer, Packed, is_packed, pack, unpack

INSIDE = 32768  # bytes of a result up to which it is cheaper to copy than to lay apart


class Outcome(msgspec.Struct, array_like=True, frozen=True):
    """What a job left: its pickled result, and its output.

    Where there is the text of an exception, `result` is the pickled exception itself, or b''
    if that cannot travel.
    """

    result: bytes = b''
    stdout: str = ''
    stderr: str = ''
    exception: str = ''


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Outcome)


def encode_outcome(
    result: bytes | Packed = b'', stdout: str = '', stderr: str = '', exception: str = ''
) -> bytes | Packed:
    """Make what travels to the client; a large result is not copied into it."""
    if isinstance(result, bytes) and len(result) <= INSIDE:
        return _encode(Outcome(result, stdout, stderr, exception))
    return pack([_encode(Outcome(b'', stdout, stderr, exception)), result])


def encode_failure(stdout: str = '', stderr: str = '', exception: str = '') -> bytes:
    """Make the outcome of a job without a result."""
    return _encode(Outcome(b'', stdout, stderr, exception))


def decode_outcome(data: Buffer) -> tuple[Outcome, Buffer]:
    """Read what `encode_outcome` wrote, and the result in it, which may be a part of `data`.

    b'' is the outcome of a job that left nothing.
    """
    if not data:
        return Outcome(), b''
    head, result = data, None
    if is_packed(data):
        head, result, *_ = (*unpack(data), b'', b'')
    try:
        outcome = _decoder.decode(head)
    except MALFORMED as error:
        raise ProtocolError(f'malformed outcome of {len(data)} bytes: {error}') from error
    return outcome, outcome.result if result is None else result


def _encode(outcome: Outcome) -> bytes:
    try:
        return _encoder.encode(outcome)
    except UnicodeEncodeError:  # half of a surrogate pair: legal in a str, not in UTF-8
        texts = [_encodable(text) for text in (outcome.stdout, outcome.stderr, outcome.exception)]
        return _encoder.encode(Outcome(outcome.result, *texts))


def _encodable(text: str) -> str:
    return text.encode('utf-8', 'backslashreplace').decode()

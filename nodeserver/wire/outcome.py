"""A job's outcome, written by its process and read by its client; nobody between opens it."""

import msgspec

from nodeserver.core.errors import ProtocolError
from nodeserver.wire.codec import MALFORMED


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
    result: bytes = b'', stdout: str = '', stderr: str = '', exception: str = ''
) -> bytes:
    """Make the bytes that travel to the client."""
    outcome = Outcome(result, stdout, stderr, exception)
    try:
        return _encoder.encode(outcome)
    except UnicodeEncodeError:  # half of a surrogate pair: legal in a str, not in UTF-8
        texts = [_encodable(text) for text in (stdout, stderr, exception)]
        return _encoder.encode(Outcome(result, *texts))


def decode_outcome(data: bytes) -> Outcome:
    """Read what `encode_outcome` wrote; b'' is the outcome of a job that left nothing."""
    if not data:
        return Outcome()
    try:
        return _decoder.decode(data)
    except MALFORMED as error:
        raise ProtocolError(f'malformed outcome of {len(data)} bytes: {error}') from error


def _encodable(text: str) -> str:
    return text.encode('utf-8', 'backslashreplace').decode()

"""Digests of files, by which it is known whether a node has one already."""

import hashlib
from typing import Any

from nodeserver.wire.manifest import DIGEST_SIZE


def new_digest(content: bytes | memoryview = b'') -> Any:
    """Begin a digest; `digest_of` ends it."""
    return hashlib.sha256(content)


def digest_of(begun: Any) -> bytes:
    """End a digest."""
    whole: bytes = begun.digest()
    return whole[:DIGEST_SIZE]

"""The memory of large objects, left beside their pickle instead of being copied into it."""

import pickle

from nodeserver.wire.packed import LARGE

BESIDE = 32768  # bytes from which a buffer is worth a place beside the pickle


class Kept:
    """The buffers that a pickler leaves out, in their order."""

    __slots__ = ('buffers',)

    def __init__(self) -> None:
        self.buffers: list[memoryview] = []

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        """Whether the buffer is to stay in the pickle."""
        view = memoryview(buffer)
        if view.nbytes < BESIDE or not view.contiguous:
            return True
        self.buffers.append(buffer.raw())
        return False


class _Beside:
    """A large `bytes` or `bytearray`, which pickle by itself would copy into the pickle."""

    __slots__ = ('content',)

    def __init__(self, content: bytes | bytearray) -> None:
        self.content = content

    def __reduce__(self) -> tuple[type, tuple[pickle.PickleBuffer]]:
        return type(self.content), (pickle.PickleBuffer(self.content),)


def beside(value: object) -> object:
    """Have a large `bytes` pickled so that its content stays where it is."""
    if type(value) in (bytes, bytearray) and len(value) >= LARGE:  # type: ignore[arg-type]
        return _Beside(value)  # type: ignore[arg-type]
    return value

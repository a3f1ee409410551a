"""What debug messages show of events and effects: one line each, and nothing of users' data."""

import dataclasses
from typing import Final

_MOST_ITEMS: Final = 4
_LONGEST_TEXT: Final = 100


def in_words(value: object) -> str:
    """Return a value as one short line; payloads and packages are sizes only (D7)."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f'<{len(value)} bytes>'
    if isinstance(value, list | tuple):
        items = [in_words(item) for item in value[:_MOST_ITEMS]]
        if len(value) > _MOST_ITEMS:
            items.append(f'... {len(value)} in all')
        return f'[{", ".join(items)}]'
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return f'{type(value).__name__}({", ".join(in_words(getattr(value, n)) for n in names)})'
    text = repr(value)
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + '...'

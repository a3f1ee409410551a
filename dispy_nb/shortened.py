"""Users' objects in a few words, for displays: their own `repr` may be slow, long, or fail."""

import reprlib
from collections.abc import Mapping
from itertools import islice
from typing import Any

MOST_CHARACTERS = 80
PLAIN = frozenset((int, float, str, bool, bytes, type(None), complex))
_BUILT_IN = (list, tuple, dict, set, frozenset)


class _Repr(reprlib.Repr):
    """Leaves dictionaries in their order, and looks at the first of many bytes only."""

    def repr_bytes(self, x: bytes, level: int) -> str:
        text = repr(x[: self.maxstring])
        return f'{text}...' if len(x) > self.maxstring else text

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        if not x:
            return '{}'
        if level <= 0:
            return '{...}'
        parts = [
            f'{self.repr1(key, level - 1)}: {self.repr1(value, level - 1)}'
            for key, value in islice(x.items(), self.maxdict)
        ]
        return '{' + ', '.join([*parts, '...'] if len(x) > self.maxdict else parts) + '}'


_TYPE_NAME = type.__dict__['__name__']  # as Python has it, whatever a metaclass says
_SHOWN = 4  # parts of a container
_repr = _Repr()
_repr.maxstring = _repr.maxother = 40
_repr.maxlist = _repr.maxtuple = _repr.maxdict = _repr.maxset = _repr.maxfrozenset = _SHOWN
_repr.maxlevel = 3
_repr.maxlong = 24


def value_text(value: Any) -> str:
    """Describe a value: built-in ones as they are written, arrays by shape, others by type.

    It never fails: it runs where jobs are submitted and where they end.
    """
    try:
        return _described(value)
    except Exception:  # noqa: BLE001 - the user's own object, whatever it does when looked at
        return _type_text(value)


def _type_text(value: Any) -> str:
    return cut(f'<{_TYPE_NAME.__get__(type(value))}>')


def _described(value: Any) -> str:
    if type(value) in (dict, list, tuple) and not all(map(_is_plain, _some(value))):
        return cut(_parts_text(value))
    names = getattr(type(value), '_fields', None)
    if isinstance(value, tuple) and isinstance(names, tuple):  # a namedtuple
        pairs = islice(zip(names, value, strict=False), _SHOWN)
        return cut(f'{type(value).__name__}({", ".join(f"{n}={_one_text(v)}" for n, v in pairs)})')
    return _one_text(value)


def _parts_text(value: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> str:
    """Describe what is in a container: numbers are seen, also those beside an array."""
    if isinstance(value, dict):
        pairs = islice(value.items(), _SHOWN)
        texts = [f'{_one_text(key)}: {_one_text(part)}' for key, part in pairs]
    else:
        texts = [_one_text(part) for part in value[:_SHOWN]]
    inside = ', '.join([*texts, '...'] if len(value) > _SHOWN else texts)
    if isinstance(value, dict):
        return f'{{{inside}}}'
    return f'[{inside}]' if isinstance(value, list) else f'({inside}{"," * (len(value) == 1)})'


def _one_text(value: Any) -> str:
    try:
        return _alone(value)
    except Exception:  # noqa: BLE001 - one part that cannot be looked at leaves the others
        return _type_text(value)


def _alone(value: Any) -> str:
    shape, kind = getattr(value, 'shape', None), type(value)
    if isinstance(shape, tuple):
        if shape == () and kind.__module__ == 'numpy' and _is_plain(number := value.item()):
            return cut(_repr.repr(number))
        dtype = getattr(value, 'dtype', '')
        return cut(f'{kind.__name__}{shape} {dtype}'.rstrip())
    if kind in PLAIN or (kind in _BUILT_IN and all(map(_is_plain, _some(value)))):
        return cut(_repr.repr(value))
    if kind in _BUILT_IN:
        return f'{kind.__name__} of {len(value)}'
    name = getattr(value, '__name__', None)
    return cut(str(name) if isinstance(name, str) else f'<{kind.__name__}>')


def call_text(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Describe the arguments of a call."""
    parts = [value_text(value) for value in args[:8]]
    parts += [f'{name}={value_text(value)}' for name, value in list(kwargs.items())[:8]]
    if len(args) > 8 or len(kwargs) > 8:
        parts.append('...')
    return cut(', '.join(parts))


def arguments_text(kept: Any) -> str:
    """Describe what a job keeps of its arguments: words, or a tuple of plain values."""
    if isinstance(kept, str):
        return kept
    return call_text(kept, {}) if kept is not None else ''


def id_text(job: Any) -> str:
    """Write a job's id, which may be any object of the user's."""
    try:
        return cut(str(job._id))
    except Exception:  # noqa: BLE001 - the user's own object, on our threads
        return f'#{job._number}'


def cut(text: str) -> str:
    """Shorten a text to one line of bounded length, without what is not printable."""
    text = ' '.join(text[: 4 * MOST_CHARACTERS].split())
    text = ''.join(letter if letter.isprintable() else '\ufffd' for letter in text)
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + '…'


def _is_plain(value: Any) -> bool:
    return type(value) in PLAIN


def _some(value: Any) -> list[Any]:
    """Up to eight parts of a built-in container; of a dictionary keys and values."""
    parts: list[Any] = []
    for part in value.items() if isinstance(value, dict) else value:
        parts += part if isinstance(value, dict) else (part,)
        if len(parts) >= 8:
            break
    return parts

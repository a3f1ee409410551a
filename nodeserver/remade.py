"""What cloudpickle sends by name, or not whole, and what is made anew on the node instead.

cached function ──▶ an empty one, which its function's globals may name ──▶ the function
class with slots ─▶ made with them: a class that is there gets none any more
"""

import functools
import types
from collections.abc import Callable
from typing import Any

import cloudpickle

_Cached = type(functools.lru_cache(abs))


def cached_function(obj: Any) -> Any:
    """How to make a function of `functools.cache` anew; NotImplemented if it has its name there."""
    if type(obj) is not _Cached:
        return NotImplemented
    library = cloudpickle.cloudpickle
    found = library._lookup_module_and_qualname(obj, obj.__qualname__)
    if found is not None and not library._is_registered_pickle_by_value(found[0]):
        return NotImplemented
    options = obj.cache_parameters()
    state = obj.__wrapped__, {k: v for k, v in vars(obj).items() if k != '__wrapped__'}
    return _empty, (options['maxsize'], options['typed']), state, None, None, _fill


def _empty(maxsize: int | None, typed: bool) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        return made.__wrapped__(*args, **kwargs)

    made = functools.lru_cache(maxsize, typed)(call)
    return made


def _fill(made: Any, state: tuple[Callable[..., Any], dict[str, Any]]) -> None:
    function, others = state
    functools.update_wrapper(made, function)
    vars(made).update(others)


def cached_property(obj: functools.cached_property[Any]) -> Any:
    """How to make one anew: its lock cannot travel."""
    names = {'attrname': obj.attrname, '__doc__': obj.__doc__}
    return functools.cached_property, (obj.func,), names


def with_slots(cls: type, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    """Have a class made with its slots; their descriptors come with them."""
    slots = vars(cls).get('__slots__')
    if slots is None:
        return reduced
    make, arguments, (members, *rest), *others = reduced
    kind, name, bases, keywords, *ids = arguments
    members = {k: v for k, v in members.items() if type(v) is not types.MemberDescriptorType}
    members.pop('__slots__', None)
    keywords = {**keywords, '__slots__': slots}
    return make, (kind, name, bases, keywords, *ids), (members, *rest), *others

"""Functions and classes as bytes that define them, and name the files that they come from."""

import io
import pickle
import types
from collections.abc import Callable
from typing import Any

import cloudpickle

PROTOCOL = 5


class DefinitionPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Sends functions with the names of their files, which cloudpickle 3.1.3 and later hide.

    Tracebacks find the user's lines by them.
    """

    def reducer_override(self, obj: object) -> Any:
        if type(obj) is types.CodeType:
            return types.CodeType, _code_arguments(obj)
        return super().reducer_override(obj)


def _code_arguments(code: types.CodeType) -> tuple[object, ...]:
    return (
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_nlocals,
        code.co_stacksize,
        code.co_flags,
        code.co_code,
        code.co_consts,
        code.co_names,
        code.co_varnames,
        code.co_filename,
        code.co_name,
        code.co_qualname,
        code.co_firstlineno,
        code.co_linetable,
        code.co_exceptiontable,
        code.co_freevars,
        code.co_cellvars,
    )


def dump_by_definition(
    obj: object, take: Callable[[pickle.PickleBuffer], bool] | None = None
) -> bytes:
    """Pickle an object with the definitions that it needs; large buffers go to `take`."""
    buffer = io.BytesIO()
    DefinitionPickler(buffer, PROTOCOL, take).dump(obj)
    return buffer.getvalue()

"""A magic's line as words, and words as values.

A line is split at spaces, but not within brackets or quotes: `submit c "a b" [1, 2]` has four
words.  What is Python (arguments of jobs, what is mapped) is evaluated as it is written, with the
names of the notebook.  Around the value of an option quotes only hold it together, as in a shell.
"""

import builtins
import difflib
import keyword
from collections.abc import Iterable
from typing import Any

from IPython.core.error import UsageError

_CLOSING = {'(': ')', '[': ']', '{': '}'}
_QUOTES = '\'"'
FILE = '<%dispy>'  # of expressions in a magic's line, in tracebacks


def split(line: str, partial: bool = False) -> list[str]:
    """Split a line into words; `partial` is for a line that is still being typed.

    Raises
    ------
    UsageError
        A quote or bracket is not closed, or a closing one was not opened.
    """
    words, start, at = [], -1, 0
    expected: list[str] = []  # what closes the brackets that are open
    while at < len(line):
        char = line[at]
        if char.isspace() and not expected:
            if start >= 0:
                words.append(line[start:at])
            start = -1
        else:
            start = at if start < 0 else start
            if char in _QUOTES:
                at = _end_of_string(line, at, partial)
            elif char in _CLOSING:
                expected.append(_CLOSING[char])
            elif expected and char == expected[-1]:
                expected.pop()
            elif char in _CLOSING.values() and not partial:
                raise UsageError(f'{char} closes no bracket in: {line.strip()}')
        at += 1
    if expected and not partial:
        raise UsageError(f'{expected[-1]} is missing at the end of: {line.strip()}')
    return [*words, line[start:]] if start >= 0 else words


def _end_of_string(line: str, start: int, partial: bool) -> int:
    """Where the quote is that ends a string; the strings of Python, but for three quotes."""
    at = start + 1
    while at < len(line):
        if line[at] == line[start]:
            return at
        at += 2 if line[at] == '\\' else 1
    if partial:
        return len(line)
    raise UsageError(f'the quote {line[start]} is not closed in: {line.strip()}')


def unquoted(word: str) -> str:
    """Take away the quotes around a whole word."""
    if len(word) >= 2 and word[0] in _QUOTES and _end_of_string(word, 0, True) == len(word) - 1:
        return word[1:-1]
    return word


def is_expression(word: str) -> bool:
    """Whether a word that may be plain text is meant as Python: it stands in brackets."""
    return word[:1] in _CLOSING


def value_of(shell: Any, word: str) -> Any:
    """Evaluate a Python expression with the names of the notebook; what it raises is raised.

    Raises
    ------
    UsageError
        It is no expression, or names what the notebook does not have.
    """
    try:
        code = compile(word, FILE, 'eval')
    except (SyntaxError, ValueError) as error:
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UsageError(f'{word} is no Python expression: {said}') from None
    try:
        return eval(code, shell.user_global_ns, shell.user_ns)
    except NameError as error:
        trace = error.__traceback__
        if trace is None or trace.tb_next is None or trace.tb_next.tb_next is not None:
            raise  # within a function of the user's
        names = [*shell.user_ns, *vars(builtins)]
        text = f'{error.name} is no name of this notebook{nearest(error.name, names)}'
        raise UsageError(text) from None


def call_of(shell: Any, words: Iterable[str]) -> tuple[list[Any], dict[str, Any]]:
    """Evaluate the arguments of a call: expressions, and `name=expression`."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        name, value = named(word)
        if not name:
            args.append(value_of(shell, word))
        elif name in kwargs:
            raise UsageError(f'{name} is given twice')
        else:
            kwargs[name] = value_of(shell, value)
    return args, kwargs


def named(word: str) -> tuple[str, str]:
    """Divide `name=value`; the name is '' where a word is none."""
    name, equals, value = word.partition('=')
    if equals and value and not value.startswith('=') and is_name(name):
        return name, value
    return '', word


def is_name(text: str) -> bool:
    """Whether a text can be the name of a variable."""
    return text.isidentifier() and not keyword.iskeyword(text)


def check_name(text: str, what: str) -> str:
    """Return what is to be the name of a variable."""
    if not is_name(text):
        raise UsageError(f'{what} must be the name of a variable, not {text}')
    return text


def nearest(word: Any, names: Iterable[str]) -> str:
    """Say which name was meant, if one is near."""
    word = str(word)
    close = difflib.get_close_matches(word, sorted({str(name) for name in names}))
    close.sort(
        key=lambda name: sorted(name) != sorted(word)
    )  # letters in another order are nearest
    return f': did you mean {close[0]}?' if close else ''

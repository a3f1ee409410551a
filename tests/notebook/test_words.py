"""The line of a magic becomes words in one way, whatever stands in it."""

from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.error import UsageError

from dispy_nb.notebook.magics.arguments import with_flags
from dispy_nb.notebook.magics.words import call_of, named, nearest, split, unquoted, value_of


def shell(**names: Any) -> Any:
    """Answer what evaluates expressions: the names of a notebook."""
    return SimpleNamespace(user_ns=names, user_global_ns=names)


@pytest.mark.parametrize(
    ('line', 'words'),
    [
        ('', []),
        ('  submit   c  ', ['submit', 'c']),
        ('submit c "a b" [1, 2]', ['submit', 'c', '"a b"', '[1, 2]']),
        ("map c f(1, ' ]') {'a': (1, 2)}", ['map', 'c', "f(1, ' ]')", "{'a': (1, 2)}"]),
        ('submit c f"{x} y" r"\\" z"', ['submit', 'c', 'f"{x} y"', 'r"\\" z"']),
        ('x=[i for i in y] "" --o=\'a b\'', ['x=[i for i in y]', '""', "--o='a b'"]),
        ('submit größe 名前 my-run', ['submit', 'größe', '名前', 'my-run']),
        ('a\u3000b\tc', ['a', 'b', 'c']),
        ('[not closed\nhere]', ['[not closed\nhere]']),
    ],
)
def test_lines_are_split_at_spaces_outside_of_brackets_and_quotes(
    line: str, words: list[str]
) -> None:
    assert split(line) == words


@pytest.mark.parametrize(
    ('line', 'said'),
    [
        ('submit c "a', 'the quote " is not closed in: submit c "a'),
        ("submit c don't", "the quote ' is not closed"),
        ('submit c (1, [2)', ') closes no bracket in'),
        ('submit c 1]', '] closes no bracket'),
        ('submit c {1: (2', ') is missing at the end of'),
        ('submit c "a\\"', 'the quote " is not closed'),
    ],
)
def test_what_is_not_closed_is_named(line: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        split(line)
    assert said in str(error.value)
    assert split(line, partial=True)  # while it is being typed, that is no error


def test_quotes_around_a_whole_word_can_be_taken_away() -> None:
    assert unquoted('"a b"') == 'a b'
    assert unquoted("'a' + 'b'") == "'a' + 'b'"
    assert unquoted('"') == '"'
    assert unquoted('x') == 'x'


def test_arguments_are_python_and_named_ones_go_by_name() -> None:
    names = shell(n=3)
    words = split('n -1 "a b" [n, {"k": n}] flag=n==3 text="x=y" n==3')
    args, kwargs = call_of(names, words)
    assert args == [3, -1, 'a b', [3, {'k': 3}], True]
    assert kwargs == {'flag': True, 'text': 'x=y'}
    assert named('lambda=1') == ('', 'lambda=1')
    with pytest.raises(UsageError, match='a is given twice'):
        call_of(names, ['a=1', 'a=2'])


def test_wrong_expressions_are_said_and_those_of_the_user_raise_what_they_raise() -> None:
    def broken() -> None:
        raise NameError('mine')

    with pytest.raises(UsageError, match='lenght is no name of this notebook: did you mean length'):
        value_of(shell(length=1), 'lenght + 1')
    with pytest.raises(UsageError, match=r'1 \+ is no Python expression: invalid syntax'):
        value_of(shell(), '1 +')
    with pytest.raises(UsageError, match='is no Python expression'):
        value_of(shell(), 'a\0')
    with pytest.raises(NameError, match='mine'):
        value_of(shell(broken=broken), 'broken()')
    with pytest.raises(ZeroDivisionError):
        value_of(shell(), '1/0')


def test_nearest_prefers_the_same_letters() -> None:
    assert nearest('strat', ['stats', 'start']) == ': did you mean start?'
    assert nearest('qqq', ['stats']) == ''


def test_flags_may_stand_alone_and_parameters_may_be_assigned() -> None:
    words = split('c f --reentrant cpus=2 --insecure False --progress --pulse-interval 3')
    assert with_flags(words) == [
        *('c', 'f', '--reentrant=True', '--cpus=2', '--insecure', 'False'),
        *('--progress=True', '--pulse-interval', '3'),
    ]
    assert with_flags(['cpus=2'], assignments=False) == ['cpus=2']

"""What a job wrote last, in few lines that harm no terminal."""

import re

MOST_LINES = 20
MOST_CHARACTERS = 4000

_FATAL = 'Fatal Python error: '  # what faulthandler writes begins so
# the frames below the user's are those of a worker, which help nobody
_OUR_FRAME = re.compile(r'^  File ".*\bnodeserver[/\\]worker[/\\]run\.py", line \d+ in ')
_LEFT_OUT = '...'


def last_words(stdout: str, stderr: str) -> str:
    """Make a paragraph of each: where Python says that it crashed, and both outputs' last lines."""
    said, fatal, crash = stderr.rpartition(_FATAL) if _FATAL in stderr else (stderr, '', '')
    share = 2 if stdout.strip() and said.strip() else 1
    lines, characters = MOST_LINES // share, MOST_CHARACTERS // share
    return '\n'.join(
        f'{title}:\n{text}'
        for title, text in (
            ('where it crashed', _crash(fatal + crash)),
            ('last lines of its standard output', _tail(stdout, lines, characters)),
            ('last lines of its standard error', _tail(said, lines, characters)),
        )
        if text
    )


def _crash(text: str) -> str:
    """The user's frames of the thread that crashed; Python writes the latest call first."""
    found: list[str] = []
    in_current = False
    for line in text.splitlines():
        if line.startswith('Current thread '):
            in_current = True
        elif in_current and (not line.startswith('  File ') or _OUR_FRAME.match(line)):
            break
        if line.startswith(_FATAL) or (in_current and len(found) < MOST_LINES):
            found.append(_harmless(line))
    return '\n'.join(found)[:MOST_CHARACTERS]


def _tail(text: str, most_lines: int, most_characters: int) -> str:
    """The last lines of a text, bounded."""
    whole = text.rstrip()
    end = whole[-most_characters:]
    # a bar of progress is written over and over: what could be seen at last counts
    lines = [_harmless(line.rstrip('\r').rpartition('\r')[2]) for line in end.split('\n')]
    is_cut = len(end) < len(whole)
    if is_cut and len(lines) > 1:
        del lines[0]  # it begins somewhere in the middle
    tail = '\n'.join(lines[-most_lines:])[-most_characters:]
    return f'{_LEFT_OUT}\n{tail}' if is_cut or len(lines) > most_lines else tail


def _harmless(line: str) -> str:
    """Write what is not to be printed as a program in Python would."""
    if line.isprintable():
        return line
    return ''.join(
        each if each.isprintable() or each == '\t' else each.encode('unicode_escape').decode()
        for each in line
    )

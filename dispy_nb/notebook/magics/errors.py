"""What goes wrong in a magic: ours is said in words, what the user's code raises is shown whole."""

from collections.abc import Iterator
from contextlib import contextmanager

from dispy_nb.notebook.magics.arguments import HelpShown
from nodeserver.core.errors import DispyError


@contextmanager
def told_in_words() -> Iterator[None]:
    """Have IPython show errors of this package without a traceback; they are raised as they are."""
    try:
        yield
    except HelpShown:
        pass
    except DispyError as error:
        if not hasattr(error, '_render_traceback_'):
            show_as(error, f'{type(error).__name__}: {error}')
        raise


def show_as(error: BaseException, text: str) -> None:
    """Have IPython show a text in place of an error's traceback."""
    # IPython asks errors for this method; it is for this one only, so it stands on the object
    error._render_traceback_ = lambda: text.splitlines()  # type: ignore[attr-defined]

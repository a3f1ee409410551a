"""Every error of the package, by whose fault it is; each carries the facts it speaks of."""


class DispyError(Exception):
    """Root of all errors that this package raises on purpose."""


# the caller's fault


class UsageError(DispyError, ValueError):
    """An argument has a wrong value: the text names it, what was given and what is allowed."""


class WrongType(UsageError, TypeError):  # noqa: N818 - reads as a sentence
    """An argument is of a wrong type, where the documents promise a `TypeError`."""


class UnknownParameter(UsageError, TypeError):  # noqa: N818 - reads as a sentence
    """There is no parameter of that name; the text names the nearest one."""


class NotYetSupported(UsageError):  # noqa: N818 - reads as a sentence where it is raised
    """A documented feature that is not in this version yet."""

    def __init__(self, what: str, meanwhile: str = 'leave it at its default') -> None:
        super().__init__(f'{what} is not yet supported by this version; {meanwhile}')
        self.what = what


class ClusterClosed(UsageError):  # noqa: N818
    """The cluster was closed before this call."""


class PicklingFailed(DispyError, TypeError):  # noqa: N818
    """Something that has to travel cannot be pickled; the text says which variable it is."""


class JobFailed(DispyError, RuntimeError):  # noqa: N818
    """A job ended without a result, and has no exception of its own that could be raised here.

    Attributes
    ----------
    status : str
        How it ended: 'terminated', 'cancelled' or 'abandoned'.
    text : str
        The traceback, or how its process died, or why it was cancelled.
    index : int or None
        Which call of a `map` it was, from 0 on.
    """

    def __init__(self, status: str, text: str, index: int | None = None) -> None:
        call = '' if index is None else f'call {index}: '
        super().__init__(f'{call}{text or status}')
        self.status, self.text, self.index = status, text, index

    def __reduce__(self) -> tuple[type, tuple[str, str, int | None]]:
        return type(self), (self.status, self.text, self.index)


class RemoteTraceback(DispyError):  # noqa: N818
    """The traceback of the node, as the cause of an exception that was raised there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}\n"""'


# the surroundings' fault


class NodesMissing(DispyError, TimeoutError):  # noqa: N818
    """Nodes that were waited for did not come in time; the text says what is known of them."""


class PortBusy(DispyError, OSError):  # noqa: N818
    """A port that was asked for by number is taken by another program."""

    def __init__(
        self,
        port: int,
        address: str,
        option: str,
        advice: str = 'or leave it out to have a free one taken',
    ) -> None:
        super().__init__(
            f'port {port} at {address or "every address"} is in use by another program: '
            f'choose another with {option}, {advice}'
        )
        self.port, self.address = port, address


class KeyFileError(DispyError, OSError):
    """The key file is missing, malformed, or open to other users."""


class CertificateError(KeyFileError):
    """A certificate or its key cannot be used; the text names the file and what to do."""


class FileRefused(DispyError, OSError):  # noqa: N818
    """A file may not be put, or cannot be taken, where it was asked for."""


class DatabaseError(DispyError, OSError):
    """A file of the package's own records cannot be used; the text names it and says why."""


class DatabaseExposed(DatabaseError):  # noqa: N818
    """It is not this user's alone: others can read or replace it, or it is a link."""


class DatabaseBusy(DatabaseError):  # noqa: N818
    """Another program has it open."""


class DatabaseForeign(DatabaseError):  # noqa: N818
    """It is something else: no database at all, or that of another program."""


class DatabaseVersionUnknown(DatabaseError):  # noqa: N818
    """Another version of this package has written it, in a way that this one cannot read."""


class DatabaseDamaged(DatabaseError):  # noqa: N818
    """It is not whole, or does not hold what it should."""


class DatabaseUnwritable(DatabaseError):  # noqa: N818
    """It cannot be made or written: the disk is full, or there is no permission."""


class ConfigurationError(DispyError, ValueError):
    """A configuration file is missing, or malformed: the text names it, the key and the value."""


class NodesNotStarted(DispyError, RuntimeError):  # noqa: N818
    """Node servers that this program started did not come up."""


# the peer's fault


class ProtocolError(DispyError):
    """A peer sent what no correct peer sends; its connection is closed."""


class PeerRefused(DispyError):  # noqa: N818
    """A peer that may not be talked to (other key, other protocol); the text says why."""


class NotCarried(PeerRefused):
    """A relay carries no connection to a node now; `is_certain` if the node is known to be gone."""

    def __init__(self, words: str, is_certain: bool = False) -> None:
        super().__init__(words)
        self.is_certain = is_certain


class SchedulerRefused(PeerRefused):
    """The scheduler of a `SharedJobCluster`, or who answers in its place, turns it away."""


# our own fault


class InvariantBroken(DispyError, AssertionError):  # noqa: N818
    """A core found itself in a state it must never be in; the text tells the story."""

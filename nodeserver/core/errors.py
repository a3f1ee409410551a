"""Every error of the package, by whose fault it is; each carries the facts it speaks of."""


class DispyError(Exception):
    """Root of all errors that this package raises on purpose."""


# the caller's fault


class UsageError(DispyError, ValueError):
    """An argument has a wrong value: the text names it, what was given and what is allowed."""


class NotYetSupported(UsageError):  # noqa: N818 - reads as a sentence where it is raised
    """A documented parameter whose feature is not in this version yet."""

    def __init__(self, what: str) -> None:
        super().__init__(f'{what} is not yet supported by this version; leave it at its default')
        self.what = what


class ClusterClosed(UsageError):  # noqa: N818
    """The cluster was closed before this call."""


class PicklingFailed(DispyError, TypeError):  # noqa: N818
    """Something that has to travel cannot be pickled; the text says which variable it is."""


# the surroundings' fault


class PortBusy(DispyError, OSError):  # noqa: N818
    """A port that was asked for by number is taken by another program."""

    def __init__(self, port: int, address: str, option: str) -> None:
        super().__init__(
            f'port {port} at {address or "every address"} is in use by another program: '
            f'choose another with {option}, or leave it out to have a free one taken'
        )
        self.port, self.address = port, address


class KeyFileError(DispyError, OSError):
    """The key file is missing, malformed, or open to other users."""


class NodesNotStarted(DispyError, RuntimeError):  # noqa: N818
    """Node servers that this program started did not come up."""


# the peer's fault


class ProtocolError(DispyError):
    """A peer sent what no correct peer sends; its connection is closed."""


class PeerRefused(DispyError):  # noqa: N818
    """A peer that may not be talked to (other key, other protocol); the text says why."""


# our own fault


class InvariantBroken(DispyError, AssertionError):  # noqa: N818
    """A core found itself in a state it must never be in; the text tells the story."""

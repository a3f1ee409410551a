"""The keys of a link, apart from whoever derives or uses them."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LinkKeys:
    """The two CURVE key pairs that all programs of one secret share, z85 text as bytes (D7).

    A listener proves itself with the server pair and admits only the client's public key.
    """

    server_public: bytes = field(repr=False)
    server_secret: bytes = field(repr=False)
    client_public: bytes = field(repr=False)
    client_secret: bytes = field(repr=False)

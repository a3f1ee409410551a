"""How much may be under way on a link."""

from nodeserver.core.values import value

MIB = 1024 * 1024
MOST_FRAMES = 4096  # of a message: of those that are payloads, each has 32 kB or more


@value
class Limits:
    """How much may be under way; both ends of a link should have the same."""

    credit: int = 32 * MIB  # unacknowledged bytes in flight, each direction
    unacknowledged: int = 256  # messages after which the receiver acknowledges by itself
    bulk_above: int = 4 * MIB  # larger messages travel in parts
    part: int = MIB
    # Only so many parts are under way: what was handed to the socket cannot be overtaken.
    parts_in_flight: int = 4
    largest: int = 4 * 1024 * MIB

"""What happens to a cluster whose scheduler is in another program."""

from nodeserver.core.values import value


@value
class SchedulerMissed:
    """The scheduler cannot be reached, or turns us away (`is_refusal`); it is tried on."""

    place: str
    reason: str
    is_refusal: bool = False

"""How often nodes are asked for a sign of life."""

from collections.abc import Iterable

from nodeserver.core.computation import Computation

PULSE_INTERVAL = 5.0  # seconds (D17)


def begin_pulse(computations: Iterable[Computation], now: float) -> float:
    """Nodes are asked for a sign of life; when they are to be asked again.

    The most impatient computation says so; others are told of figures in their own time (E12).
    """
    intervals = {comp: comp.declared.pulse_interval for comp in computations}
    shortest = min(intervals.values(), default=PULSE_INTERVAL)
    for comp, interval in intervals.items():
        comp.is_told_figures = now >= comp.figures_at
        if comp.is_told_figures:
            comp.figures_at = now + interval - shortest / 2
    return now + shortest

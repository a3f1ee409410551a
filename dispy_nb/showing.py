"""Charts of a cluster: who draws them is found when one is asked for (D11)."""

import importlib
from collections.abc import Callable
from typing import Any

from dispy_nb.lifetime import Lifetime

What = str | int | Callable[[Any], Any] | None


class Showing(Lifetime):
    """The part of `JobCluster` that draws."""

    _charts: Any = None  # once they were asked for

    def charts(self) -> Any:
        """Show live charts of the nodes and a timeline of the jobs in the running cell (V09).

        Returns
        -------
        ClusterCharts
            Shows them again as the last line of a cell or by `display`; its text says the same.
        """
        if self._charts is None:
            # by name: `import dispy_nb` loads no Jupyter package, and this floor knows none
            self._charts = importlib.import_module(
                'dispy_nb.notebook.charts.cluster'
            ).ClusterCharts(self)
        self._charts.show()
        return self._charts

    def plot(self, x: What = None, y: What = None) -> Any:
        """Draw provisional results as a chart that grows, in the running cell (V11).

        Parameters
        ----------
        x, y : str, int or callable, optional
            What to draw of a provisional result: a key, an index, the name of an attribute, or a
            function of it.  By default `x` is the time since the first job was submitted, and `y`
            the result itself.

        Returns
        -------
        ClusterPlot
            Shows it again as the last line of a cell or by `display`; its text says the same.

        Raises
        ------
        UsageError
            `x` or `y` is none of these.
        """
        plot = importlib.import_module('dispy_nb.notebook.charts.plots').ClusterPlot(self, x, y)
        plot.show()
        return plot

"""The comparison at the end of a search, as a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.table import Table

from nas.search import Row


def comparison_table(rows: Sequence[Row], epochs: int) -> Table:
    """A table with a line for each row.

    Args:
        rows: the comparison.
        epochs: how long each network was trained.
    """
    test = any(row.test_accuracies for row in rows)
    table = Table(
        title=f"Each trained alike ({epochs} epochs), at no more than the found network's MACs",
        caption="top-1 in %, mean ± standard deviation of n trainings; dev: images set aside from the training set",
    )
    table.add_column("network", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("dev", justify="right", no_wrap=True)
    if test:
        table.add_column("test", justify="right", no_wrap=True)
    table.add_column("M MACs", justify="right", no_wrap=True)
    table.add_column("k params", justify="right", no_wrap=True)
    for row in rows:
        count = f"{len(row.accuracies)}" + (f" (+{row.failed} failed)" if row.failed else "")
        cells = [row.name, count, spread(row.accuracies)]
        if test:
            cells.append(spread(row.test_accuracies))
        cells += [f"{row.macs / 1e6:.2f}", f"{row.params / 1e3:.1f}"]
        table.add_row(*cells)
    return table


def spread(values: Sequence[float]) -> str:
    """``mean ± standard deviation``, the mean alone of a single value, a dash of none."""
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"

"""Names beside the points of a plot, where they cover nothing."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gemnet.quoting import picture_text


def write_names(points: Sequence[tuple[float, float, str]], axes: Axes, figure: Figure) -> None:
    """Writes each name beside its point, at the first of several places where it covers no other name or point."""
    figure.draw_without_rendering()
    pixels = [axes.transData.transform((x, y)) for x, y, _ in points]
    middle = axes.transAxes.transform((0.5, 0.5))[0]
    taken: list[tuple[float, float, float, float]] = [(x - 6, y - 6, x + 6, y + 6) for x, y in pixels]
    for (x, y, name), (left, _) in zip(points, pixels, strict=True):
        places = [(9, dy) for dy in (-4, 8, -16, 20, -28)] + [(-9, dy) for dy in (-4, 8, -16, 20, -28)]
        if left > middle:
            places = places[5:] + places[:5]
        for place in places:
            side = "left" if place[0] > 0 else "right"
            text = axes.annotate(picture_text(name), (x, y), place, textcoords="offset points", ha=side, fontsize=8)
            box = text.get_window_extent().padded(4)
            if not any(box.x0 < t[2] and t[0] < box.x1 and box.y0 < t[3] and t[1] < box.y1 for t in taken):
                break
            if place is not places[-1]:
                text.remove()
        taken.append((box.x0, box.y0, box.x1, box.y1))

"""Networks to compare a found one with: other cells in the same stem, stages and head, at no more than its cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gemnet.classics import basic_block, bottleneck_block, inverted_residual
from gemnet.errors import GemnetError, nearest
from gemnet.genome import CellSpec, Genome
from gemnet.macs import macs

WIDTH_STEP = 4
"""Stage widths are fitted in steps of this many channels."""

RIVAL_BLOCKS = {
    "mobilenetv2": (inverted_residual, "relu6", "MobileNetV2 block"),
    "resnet": (basic_block, "relu", "ResNet block"),
    "resnet_bottleneck": (bottleneck_block, "relu", "ResNet bottleneck"),
}
"""Hand-made blocks by the name configs use: cell, what its activation is, title."""


class BaselineError(GemnetError):
    """A hand-made block that does not exist, or one that no width brings under the limit."""


def block_genome(block: str, frame: Genome) -> Genome:
    """A hand-made block in the stem, stages and head of another network, at its widths.

    Args:
        block: a name in `RIVAL_BLOCKS`.
        frame: the other network.

    Raises:
        BaselineError: there is no such block.
    """
    if block not in RIVAL_BLOCKS:
        raise BaselineError(f"There is no block {block!r} to compare with.{nearest(block, RIVAL_BLOCKS)}")
    build, activation, title = RIVAL_BLOCKS[block]
    cell: CellSpec = build()
    stages = tuple(replace(stage, cell="cell", downsample=None) for stage in frame.stages)
    return frame.replace(cells={"cell": cell}, stages=stages, activation=activation, name=block, origin=title)


def fit_width(
    genome: Genome, limit: float, in_chans: int = 3, cost: Callable[[Genome], float] | None = None, unit: str = "MACs"
) -> Genome:
    """The genome with its stages as wide as a limit on its cost allows; stem, head and depths stay.

    All widths are scaled by the largest common factor that fits; then, from the last stage to the first and as long as
    one still fits, each is widened by a step.

    Args:
        genome: the network.
        limit: what it may cost at the most.
        in_chans: channels of the image.
        cost: of a genome; multiply-adds at its input size by default.
        unit: of the cost, for people.

    Raises:
        BaselineError: it does not fit at any width.
    """

    def price(network: Genome) -> float:
        return macs(network, in_chans=in_chans) if cost is None else cost(network)

    def figure(value: float) -> str:
        return f"{value:,.0f}" if value >= 1_000 else f"{value:.3g}"

    def at(widths: list[int]) -> Genome:
        stages = tuple(replace(stage, width=w) for stage, w in zip(genome.stages, widths, strict=True))
        return genome.replace(stages=stages)

    def scaled(factor: float) -> list[int]:
        return [max(WIDTH_STEP, int(stage.width * factor / WIDTH_STEP) * WIDTH_STEP) for stage in genome.stages]

    def fits(widths: list[int]) -> bool:
        return price(at(widths)) <= limit

    widths = scaled(0)
    if not fits(widths):
        raise BaselineError(
            f"{genome.name or 'The network'} needs {figure(price(at(widths)))} {unit} at the least, more than the "
            f"{figure(limit)} allowed."
        )
    low, high = 0.0, 1.0
    while fits(scaled(high)) and high < 64:
        low, high = high, 2 * high
    while high - low > 1 / 256:
        middle = (low + high) / 2
        low, high = (middle, high) if fits(scaled(middle)) else (low, middle)
    widths = scaled(low)
    grown = True
    while grown:
        grown = False
        for place in reversed(range(len(widths))):
            wider = [w + WIDTH_STEP * (k == place) for k, w in enumerate(widths)]
            # At most one step beyond the common factor: the proportions of the stages are part of the comparison.
            if wider[place] <= scaled(high)[place] + WIDTH_STEP and fits(wider):
                widths, grown = wider, True
    return at(widths)

"""Template: the network around a searched cell, and the hand-made blocks that may take a stage in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from timm.layers import make_divisible

from gemnet.cell_graph import CellGraph
from gemnet.classics import (
    basic_block,
    depthwise_separable,
    inverted_residual,
    mobileone_block,
    plain_convolution,
    repvgg_block,
    universal_inverted_bottleneck,
)
from gemnet.errors import GenomeError, nearest
from gemnet.genome import CellSpec, Genome, LayerSpec, StageSpec

CELL = "cell"
"""Name of the searched cell among the cells of a genome."""

BLOCKS: Mapping[str, CellSpec] = {
    "conv3x3": plain_convolution(),
    "patch2x2": plain_convolution("conv2x2_bn"),
    "basic": basic_block(),
    "separable3": depthwise_separable(3),
    "separable5": depthwise_separable(5),
    "inverted2": inverted_residual(2),
    "inverted2_5": inverted_residual(2, 5),
    "inverted3_5": inverted_residual(3, 5),
    "extra3": universal_inverted_bottleneck(3, 3, 5),
    "convnext2": universal_inverted_bottleneck(2, 7, 0),
    "repvgg": repvgg_block(),
    "repvgg_reduction": repvgg_block(identity=False),
    "mobileone": mobileone_block(),
    "mobileone_reduction": mobileone_block(identity=False),
}
"""Hand-made cells that a stage may repeat, or begin with, by name; numbers are expansion and window."""


@dataclass(frozen=True)
class Template:
    """The network around a searched cell: stem, stages and head of one size.

    Args:
        form: ``imagenet`` (stride 32, four levels) or ``cifar`` (32x32 images, three levels).
        size: ``a``, ``b`` or ``c``.
        stem_width: channels of the stem.
        widths: channels of each stage at width 1.
        depths: cells of each stage; a reduction is one of them.
        strides: stride of each stage.
        head_width: channels of the 1x1 convolution before the global pool; 0 for none.
        input_size: side of the images.
        num_classes: classes.
        width_step: stages' widths are multiples of it.
        stem: the stem's operations, in place of one 3x3 convolution of ``stem_width``.
        cells: what each stage repeats: ``cell`` (the searched one), or the name of one in ``BLOCKS`` or ``further``;
            empty for ``cell`` everywhere.
        reductions: what a stage begins with, by name, where that is another cell; empty, or None, for none.
        further: cells by name besides ``BLOCKS``.
    """

    form: str
    size: str
    stem_width: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    strides: tuple[int, ...]
    head_width: int
    input_size: int
    num_classes: int
    width_step: int = 8
    stem: tuple[LayerSpec, ...] = ()
    cells: tuple[str, ...] = ()
    reductions: tuple[str | None, ...] = ()
    further: Mapping[str, CellSpec] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {CELL: None, **BLOCKS, **self.further}
        for key in ("cells", "reductions"):
            names = getattr(self, key)
            if names and len(names) != len(self.widths):
                raise GenomeError(f"{key} names {len(names)} cells, but there are {len(self.widths)} stages.")
            for name in names:
                if name not in known and not (name is None and key == "reductions"):
                    raise GenomeError(f"{key} has {name!r}.{nearest(str(name), known)}")
        if self.cells and CELL not in (*self.cells, *self.reductions):
            raise GenomeError(f"cells is {list(self.cells)}; at least one stage repeats {CELL!r}, which is searched.")

    def genome(
        self,
        cell: CellGraph,
        width: float = 1.0,
        inner_ratio: float = 6.0,
        se_ratio: float = 0.0,
        activation: str = "relu6",
        aggregate: str = "mean",
        output: str = "mean",
        residual: str = "identity",
        expand: str | None = "conv1x1_bn_act",
        final_activation: str | None = None,
        name: str = "",
        origin: str = "",
    ) -> Genome:
        """The network that repeats ``cell`` in this template.

        Args:
            cell: the DAG.
            width: factor on the stages' widths (rounded to `width_step`); stem and head stay as they are.
            inner_ratio: channels inside the DAG, as a multiple of the cell's input.
            se_ratio: squeeze-excitation, 0 for none.
            activation: what ``act`` means.
            aggregate: how nodes combine what they read.
            output: how the output node does.
            residual: around each cell; by default where size and width stay.
            expand: before the DAG, as in `gemnet.genome.CellSpec`; None for none.
            final_activation: after the residual; None for none.
            name: a name to show.
            origin: where it comes from.

        Raises:
            GenomeError: a value out of range.
        """
        for key, value, most in (("width", width, 64), ("width_step", self.width_step, 64)):
            if type(value) not in (int, float) or not 1 / 64 <= value <= most:
                raise GenomeError(f"{key} is {value!r}; expected a number from {1 / 64:g} to {most}.")
        searched = CellSpec(
            graph=cell,
            aggregate=aggregate,
            output=output,
            expand=expand,
            inner_ratio=inner_ratio,
            inner_of="input",
            se_ratio=se_ratio,
            project="conv1x1_bn",
            residual=residual,
            final_activation=final_activation,
        )
        known = {CELL: searched, **BLOCKS, **self.further}
        stages = tuple(
            _stage(repeated, reduction, make_divisible(channels * width, self.width_step), depth, stride)
            for channels, depth, stride, repeated, reduction in zip(
                self.widths,
                self.depths,
                self.strides,
                self.cells or (CELL,) * len(self.widths),
                self.reductions or (None,) * len(self.widths),
                strict=True,
            )
        )
        used = {name for stage in stages for name in (stage.cell, stage.downsample)}
        stem = self.stem or (LayerSpec("conv3x3_bn_act", self.stem_width, 2 if self.form == "imagenet" else 1),)
        return Genome(
            stem=stem,
            cells={name: spec for name, spec in known.items() if name in used},
            stages=stages,
            head=(LayerSpec("conv1x1_bn_act", self.head_width),) if self.head_width else (),
            activation=activation,
            input_size=self.input_size,
            num_classes=self.num_classes,
            name=name,
            origin=origin,
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; settings of stem and cells that stay at their defaults are left out."""
        later = ("stem", "cells", "reductions", "further")  # than the first ledgers, whose keys hold this form
        data = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in later}
        if self.stem:
            data["stem"] = [asdict(layer) for layer in self.stem]
        for key in ("cells", "reductions"):
            if getattr(self, key):
                data[key] = getattr(self, key)
        if self.further:
            data["further"] = {name: cell.to_dict() for name, cell in self.further.items()}
        return data


def _stage(repeated: str, reduction: str | None, width: int, depth: int, stride: int) -> StageSpec:
    if reduction is None:
        return StageSpec(repeated, width, depth, stride)
    if depth == 1:
        return StageSpec(reduction, width, 1, stride)
    return StageSpec(repeated, width, depth - 1, stride, reduction)


_TEMPLATES = {
    (t.form, t.size): t
    for t in (
        Template("imagenet", "a", 16, (16, 32, 64, 120), (2, 3, 4, 3), (2, 2, 2, 2), 960, 224, 1000),
        Template("imagenet", "b", 24, (24, 48, 96, 192), (2, 3, 6, 3), (2, 2, 2, 2), 1280, 224, 1000),
        Template("imagenet", "c", 32, (32, 64, 128, 256), (3, 4, 7, 3), (2, 2, 2, 2), 1280, 224, 1000),
        Template("cifar", "a", 8, (8, 24, 40), (1, 2, 3), (1, 2, 2), 160, 32, 10),
        Template("cifar", "b", 8, (8, 24, 48), (1, 3, 3), (1, 2, 2), 192, 32, 10),
        Template("cifar", "c", 16, (16, 32, 64), (1, 3, 4), (1, 2, 2), 256, 32, 10),
    )
}


def template(form: Literal["imagenet", "cifar"] = "imagenet", size: Literal["a", "b", "c"] = "b") -> Template:
    """The template of a form and size.

    Raises:
        GenomeError: there is no such form or size.
    """
    for key, value, allowed in (("form", form, ("imagenet", "cifar")), ("size", size, ("a", "b", "c"))):
        if value not in allowed:
            raise GenomeError(f"{key} is {value!r}; expected one of {', '.join(map(repr, allowed))}.")
    return _TEMPLATES[form, size]

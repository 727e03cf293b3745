"""Networks of others for small images, made as wide as it takes to cost what the reference costs.

timm's MobileNets are made for 224x224 images and shrink them 32 times; on 32x32 images one pixel would be left. Their
forms here are timm's own blocks with the first strides left out, as is usual on CIFAR-10. Where two forms are usual,
let the short runs choose (``forms`` in a comparison): a peer deserves its best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from timm.layers import make_divisible
from timm.models._efficientnet_blocks import SqueezeExcite
from timm.models._efficientnet_builder import decode_arch_def, resolve_act_layer, round_channels
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from torch import nn

from gemnet.classics import nasbench201, random_wiring, watts_strogatz_cell
from gemnet.errors import GemnetError
from gemnet.fitting import WIDTH_STEP, block_genome
from gemnet.genome import Genome
from gemnet.sources import GenomeSource, Images, Source, count_macs

BEST_NASBENCH201_CELL = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
)
"""Highest mean test accuracy on CIFAR-10 after 200 epochs of all cells of NAS-Bench-201 (94.37 %, number 6111)."""

MAX_SCALE = 1024
WIDTH_UNIT = 64  # a factor on widths is a number of 64ths

# timm's own definitions (`_gen_mobilenet_v2`, `_gen_mobilenet_v3`), with a gap for each stride.
MOBILENETV2 = (
    "ds_r1_k3_s1_c16",
    "ir_r2_k3_s{}_e6_c24",
    "ir_r3_k3_s{}_e6_c32",
    "ir_r4_k3_s{}_e6_c64",
    "ir_r3_k3_s1_e6_c96",
    "ir_r3_k3_s{}_e6_c160",
    "ir_r1_k3_s1_e6_c320",
)
MOBILENETV3_SMALL = (
    "ds_r1_k3_s{}_e1_c16_se0.25_nre",
    "ir_r1_k3_s{}_e4.5_c24_nre ir_r1_k3_s1_e3.67_c24_nre",
    "ir_r1_k5_s{}_e4_c40_se0.25 ir_r2_k5_s1_e6_c40_se0.25",
    "ir_r2_k5_s1_e3_c48_se0.25",
    "ir_r3_k5_s{}_e6_c96_se0.25",
    "cn_r1_k1_s1_c576",
)


class PeerError(GemnetError):
    """A peer with an option out of range, or one that reaches the wanted MACs at no width."""


@dataclass(frozen=True)
class MobileNetSource:
    """MobileNetV2 or MobileNetV3-small (Sandler et al., 2018; Howard et al., 2019), of timm's blocks.

    Args:
        family: ``mobilenetv2`` or ``mobilenetv3_small``.
        width: factor on all widths, stem and head included; rounded to multiples of 2, at least 4.
        reduction: side of the image divided by the last feature map's: 4, 8, 16 or 32. The last strides are kept, the
            first (the stem's before all) left out.
        depth: factor on the number of blocks of each stage, rounded up.
    """

    family: str
    width: float
    reduction: int = 8
    depth: float = 1.0

    def build(self, images: Images) -> nn.Module:
        """See `gemnet.sources.Source.build`."""
        kept = {4: 2, 8: 3, 16: 4, 32: 5}.get(self.reduction)
        if kept is None:
            raise PeerError(f"reduction of {self.family} is 4, 8, 16 or 32, got {self.reduction!r}.")
        if not 0 < self.depth <= 8:
            raise PeerError(f"depth of {self.family} is a factor in (0, 8], got {self.depth!r}.")
        second = self.family == "mobilenetv2"
        strides = iter([1] * (5 - kept) + [2] * kept)
        stem_stride = next(strides)
        stages = [
            text.format(next(strides)) if "{}" in text else text
            for text in (MOBILENETV2 if second else MOBILENETV3_SMALL)
        ]
        widths = partial(round_channels, multiplier=self.width, divisor=2, channel_min=4)
        network: type[nn.Module] = EfficientNet if second else MobileNetV3
        attention = partial(
            SqueezeExcite, gate_layer="hard_sigmoid", force_act_layer=nn.ReLU, rd_round_fn=round_channels
        )
        model = network(
            block_args=decode_arch_def([stage.split() for stage in stages], depth_multiplier=self.depth),
            num_classes=images.classes,
            in_chans=images.channels,
            stem_size=32 if second else 16,
            num_features=widths(1280 if second else 1024),
            round_chs_fn=widths,
            act_layer=resolve_act_layer({}, "relu6" if second else "hard_swish"),
            se_layer=None if second else attention,
        )
        if stem_stride == 1:
            assert isinstance(model.conv_stem, nn.Conv2d)
            model.conv_stem.stride = (1, 1)
        return model


def mobilenet(
    family: str, images: Images, target: float, reduction: int = 8, depth: float = 1.0, width: float | None = None
) -> Source:
    """A MobileNet of at least ``target`` MACs; other arguments as `MobileNetSource`, ``width`` in place of the fit."""
    if width is not None:
        return MobileNetSource(family, width, reduction, depth)
    return smallest(lambda scale: MobileNetSource(family, scale / WIDTH_UNIT, reduction, depth), images, target, family)


def nasbench201_network(
    images: Images, target: float, arch: str = BEST_NASBENCH201_CELL, cells: int = 5, channels: int | None = None
) -> Source:
    """A cell in NAS-Bench-201's own network, of at least ``target`` MACs.

    Args:
        images: what it sees.
        target: MACs to be reached.
        arch: the cell; by default the best of all on CIFAR-10.
        cells: cells of each of the three stages; the benchmark has 5.
        channels: of the first stage, in place of the fit; the benchmark has 16.
    """

    def at(channels: int) -> Source:
        return GenomeSource(nasbench201(arch, channels, cells, images.classes, max(images.side, 8)))

    return smallest(at, images, target, "nasbench201") if channels is None else at(channels)


def random_wiring_network(
    images: Images,
    target: float,
    seed: int = 0,
    nodes: int = 30,
    reduction: int = 4,
    channels: int | None = None,
) -> Source:
    """A randomly wired network (Xie et al., 2019; Watts-Strogatz 4, 0.75) of at least ``target`` MACs.

    Args:
        images: what it sees.
        target: MACs to be reached.
        seed: draws the three graphs.
        nodes: of each graph.
        reduction: 4, or 8 with a stride in the first stage too.
        channels: the paper's C, in place of the fit. The head has 1280 channels at the paper's C = 78 and as many in
            proportion at others.
    """
    if reduction not in (4, 8):
        raise PeerError(f"reduction of random_wiring is 4 or 8, got {reduction!r}.")
    if not 6 <= nodes <= 30:
        raise PeerError(f"nodes of random_wiring is 6 to 30, got {nodes!r}.")
    rng = np.random.default_rng(seed)
    graphs = [watts_strogatz_cell(rng, nodes) for _ in range(3)]

    def at(channels: int) -> Source:
        genome = random_wiring(graphs, channels, 32, images.classes)
        head = replace(genome.head[0], width=make_divisible(1280 * channels / 78))
        first = replace(genome.stages[0], stride=reduction // 4)
        return GenomeSource(genome.replace(head=(head,), stages=(first, *genome.stages[1:])))

    return smallest(at, images, target, "random_wiring") if channels is None else at(channels)


def block_network(images: Images, target: float, frame: Genome, block: str = "mobilenetv2") -> Source:
    """A hand-made block in the reference's stem, stages and head, of at least ``target`` MACs; see `gemnet.fitting`."""
    genome = block_genome(block, frame)

    def at(scale: int) -> Source:
        widths = [max(WIDTH_STEP, round(s.width * scale / WIDTH_UNIT / WIDTH_STEP) * WIDTH_STEP) for s in genome.stages]
        return GenomeSource(
            genome.replace(stages=tuple(replace(s, width=w) for s, w in zip(genome.stages, widths, strict=True)))
        )

    return smallest(at, images, target, block)


def smallest(at: Callable[[int], Source], images: Images, target: float, name: str) -> Source:
    """The network of the smallest scale that costs at least ``target`` MACs.

    Args:
        at: the network of a scale, a whole number from 1; its MACs don't fall as the scale rises.
        images: what it sees.
        target: MACs to be reached.
        name: for messages.

    Raises:
        PeerError: none does up to `MAX_SCALE`.
    """

    def enough(scale: int) -> bool:
        return count_macs(at(scale), images) >= target

    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
        if high > MAX_SCALE:
            raise PeerError(f"{name} does not reach {target:,.0f} MACs at any width.")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return at(high)

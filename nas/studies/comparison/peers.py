"""Networks of others, made as wide as it takes to cost what the reference costs: as many MACs, or as much time.

timm's MobileNets are made for 224x224 images and shrink them 32 times; on 32x32 images one pixel would be left. Their
forms here are timm's own blocks with the first strides left out, as is usual on CIFAR-10. Where two forms are usual,
let the short runs choose (``forms`` in a comparison): a peer deserves its best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from timm.layers import make_divisible
from timm.models.efficientnet import EfficientNet
from timm.models.hgnet import HighPerfGpuNet, model_cfgs
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.starnet import StarNet
from torch import nn

from gemnet.classics import nasbench201, random_wiring, repvgg, resnet, watts_strogatz_cell
from gemnet.errors import GemnetError
from gemnet.fitting import WIDTH_STEP, block_genome
from gemnet.genome import Genome
from gemnet.private_timm import (
    SqueezeExcite,
    decode_arch_def,
    make_lcnet,
    make_mobilenet_v4,
    resolve_act_layer,
    round_channels,
)
from gemnet.sources import GenomeSource, Images, Source, count_macs

BEST_NASBENCH201_CELL = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
)
"""Highest mean test accuracy on CIFAR-10 after 200 epochs of all cells of NAS-Bench-201 (94.37 %, number 6111)."""

TIMED_WIDTH = 8
"""Widths of peers that are fitted by time are multiples of this."""
TIMED_SLACK = 1.05
TIMED_REACH = 1.5
"""Peers that are fitted by time may take this much longer, and are looked for up to so many times the MACs."""
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
    """A peer with an option out of range, or one that reaches the wanted cost at no width."""


@dataclass(frozen=True)
class Target:
    """What a peer must cost at the least.

    Args:
        least: the cost.
        cost: of a network at some images.
        unit: of the cost, for messages.
        measured: whether the cost is a time. It doesn't rise with each channel then, and processors make most of
            widths in multiples of `TIMED_WIDTH`: so peers have such widths, see `fitted`.
    """

    least: float
    cost: Callable[[Source, Images], float] = count_macs
    unit: str = "MACs"
    measured: bool = False

    @property
    def step(self) -> int:
        """Between the channels that are tried."""
        return TIMED_WIDTH if self.measured else 1

    @property
    def text(self) -> str:
        """For messages."""
        return f"{self.least:,.4g} {self.unit}" if self.unit != "MACs" else f"{self.least:,.0f} MACs"


@dataclass(frozen=True)
class MobileNetSource:
    """MobileNetV2 or MobileNetV3-small (Sandler et al., 2018; Howard et al., 2019), of timm's blocks.

    Args:
        family: ``mobilenetv2`` or ``mobilenetv3_small``.
        width: factor on all widths, stem and head included; rounded to multiples of 2, at least 4.
        reduction: side of the image divided by the last feature map's: 4, 8, 16 or 32. The last strides are kept, the
            first (the stem's before all) left out.
        depth: factor on the number of blocks of each stage, rounded up.
        divisor: widths are multiples of it, instead of 2 and at least 4.
    """

    family: str
    width: float
    reduction: int = 8
    depth: float = 1.0
    divisor: int = field(default=2, repr=False)  # not part of what identifies trainings: widths are

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
        widths = partial(round_channels, multiplier=self.width, divisor=self.divisor, channel_min=max(4, self.divisor))
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
    family: str, images: Images, target: Target, reduction: int = 8, depth: float = 1.0, width: float | None = None
) -> Source:
    """A MobileNet that reaches ``target``; other arguments as `MobileNetSource`, ``width`` in place of the fit."""
    divisor = TIMED_WIDTH if target.measured else 2

    def at(width: float) -> Source:
        return MobileNetSource(family, width, reduction, depth, divisor)

    return fitted(lambda scale: at(scale / WIDTH_UNIT), images, target, family) if width is None else at(width)


@dataclass(frozen=True)
class TimmFamilySource:
    """A network of timm's at a factor on its widths, which its registered names fix.

    Args:
        family: one of `TIMM_FAMILIES`.
        width: the factor.
    """

    family: str
    width: float

    def build(self, images: Images) -> nn.Module:
        """See `gemnet.sources.Source.build`."""
        made: nn.Module = TIMM_FAMILIES[self.family](
            self.family, self.width, num_classes=images.classes, in_chans=images.channels
        )
        return made


def _starnet(family: str, width: float, **options: int) -> nn.Module:
    """timm's ``starnet_s1`` (Ma et al., 2024); its stem has 32 channels at any width."""
    return StarNet(make_divisible(24 * width, 4), [2, 2, 8, 3], **options)


def _hgnet(family: str, width: float, **options: int) -> nn.Module:
    """timm's ``hgnetv2_b0`` (of PaddlePaddle's), hidden layer of its head included."""

    def scaled(channels: Sequence[int]) -> list[int]:
        return [make_divisible(each * width, TIMED_WIDTH) for each in channels]

    whole = model_cfgs[family]
    stages = {key: [*scaled(values[:3]), *values[3:]] for key, values in whole.items() if key.startswith("stage")}
    config = {**whole, **stages, "stem_chs": scaled(whole["stem_chs"])}
    return HighPerfGpuNet(config, head_hidden_size=scaled([2048])[0], use_lab=True, **options)


TIMM_FAMILIES: Mapping[str, Callable[..., nn.Module]] = {
    "lcnet": lambda family, width, **options: make_lcnet("lcnet_100", width, **options),
    "mobilenetv4_conv_small": lambda family, width, **options: make_mobilenet_v4(family, width, **options),
    "starnet_s1": _starnet,
    "hgnetv2_b0": _hgnet,
}


def timm_family(family: str, images: Images, target: Target, width: float | None = None) -> Source:
    """One of `TIMM_FAMILIES` that reaches ``target``, its first stride and all others as they are.

    Args:
        family: which.
        images: what it sees.
        target: what is to be reached.
        width: factor on widths in place of the fit.
    """
    if width is not None:
        return TimmFamilySource(family, width)
    return fitted(lambda scale: TimmFamilySource(family, scale / WIDTH_UNIT), images, target, family)


def resnet_network(images: Images, target: Target, depth: int = 18, width: float | None = None) -> Source:
    """A ResNet that reaches ``target``, torchvision's but for its widths.

    Args:
        images: what it sees; at 64 pixels and less with a 3x3 stem that doesn't stride.
        target: what is to be reached.
        depth: 18, 34, 50, 101 or 152.
        width: factor on widths in place of the fit.
    """

    def at(width: float) -> Source:
        return GenomeSource(resnet(depth, width, max(images.side, 8), images.classes))

    if width is not None:
        return at(width)
    return fitted(lambda scale: at(scale / WIDTH_UNIT), images, target, f"resnet{depth}", target.step)


def repvgg_network(
    images: Images, target: Target, depths: Sequence[int] = (2, 4, 14, 1), width: float | None = None
) -> Source:
    """RepVGG, of A0's proportions, that reaches ``target``; it trains with its branches and is measured without.

    Args:
        images: what it sees.
        target: what is to be reached.
        depths: blocks of each of the four stages; 2, 4, 14, 1 are those of all forms of A.
        width: factor on A0's widths in place of the fit.
    """

    def at(width: float) -> Source:
        widths = [make_divisible(channels * width) for channels in (48, 48, 96, 192, 1280)]
        return GenomeSource(repvgg(widths[1:], depths, widths[0], max(images.side, 8), images.classes))

    if width is not None:
        return at(width)
    return fitted(lambda scale: at(scale / WIDTH_UNIT), images, target, "repvgg")


def nasbench201_network(
    images: Images, target: Target, arch: str = BEST_NASBENCH201_CELL, cells: int = 5, channels: int | None = None
) -> Source:
    """A cell in NAS-Bench-201's own network, that reaches ``target``.

    Args:
        images: what it sees.
        target: what is to be reached.
        arch: the cell; by default the best of all on CIFAR-10.
        cells: cells of each of the three stages; the benchmark has 5.
        channels: of the first stage, in place of the fit; the benchmark has 16.
    """

    def at(channels: int) -> Source:
        return GenomeSource(nasbench201(arch, channels, cells, images.classes, max(images.side, 8)))

    return fitted(at, images, target, "nasbench201", target.step) if channels is None else at(channels)


def random_wiring_network(
    images: Images,
    target: Target,
    seed: int = 0,
    nodes: int = 30,
    reduction: int = 4,
    channels: int | None = None,
) -> Source:
    """A randomly wired network (Xie et al., 2019; Watts-Strogatz 4, 0.75) that reaches ``target``.

    Args:
        images: what it sees.
        target: what is to be reached.
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

    return fitted(at, images, target, "random_wiring", target.step) if channels is None else at(channels)


def block_network(images: Images, target: Target, frame: Genome, block: str = "mobilenetv2") -> Source:
    """A hand-made block in the reference's stem, stages and head, that reaches ``target``; see `gemnet.fitting`."""
    genome = block_genome(block, frame)
    step = TIMED_WIDTH if target.measured else WIDTH_STEP

    def at(scale: int) -> Source:
        widths = [max(step, round(s.width * scale / WIDTH_UNIT / step) * step) for s in genome.stages]
        return GenomeSource(
            genome.replace(stages=tuple(replace(s, width=w) for s, w in zip(genome.stages, widths, strict=True)))
        )

    return fitted(at, images, target, block)


def fitted(at: Callable[[int], Source], images: Images, target: Target, name: str, step: int = 1) -> Source:
    """The network of the smallest scale that reaches ``target``; by time, the largest that takes no longer than it.

    MACs rise with the scale. A measured time does so by and large only: of some widths a runtime makes more than of
    narrower ones. So from the first scale that takes long enough on, the widest network is taken that takes no longer
    than that one, or than `TIMED_SLACK` of the target, among those of up to `TIMED_REACH` of its MACs.

    Args:
        at: the network of a scale, a whole number from 1.
        images: what it sees.
        target: what is to be reached.
        name: for messages.
        step: scales are multiples of it.

    Raises:
        PeerError: none reaches it up to `MAX_SCALE`.
    """

    def cost(scale: int) -> float:
        return target.cost(at(scale), images)

    low, high = 0, step
    while cost(high) < target.least:
        low, high = high, 2 * high
        if high > MAX_SCALE:
            raise PeerError(f"{name} does not reach {target.text} at any width.")
    while high - low > step:
        middle = (low + high) // 2 // step * step
        low, high = (low, middle) if cost(middle) >= target.least else (middle, high)
    if not target.measured:
        return at(high)
    most = max(cost(high), TIMED_SLACK * target.least)
    reach = TIMED_REACH * count_macs(at(high), images)
    wider = high + step
    while wider <= MAX_SCALE and (wider == low + 2 * step or count_macs(at(wider), images) <= reach):
        high = wider if cost(wider) <= most else high
        wider += step
    return at(high)

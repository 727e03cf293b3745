"""GEMNet as an MMDetection backbone: ``backbone=dict(type='gemnet.GEMNet', arch='gemnet_b')``."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gemnet import network
from gemnet.checkpoint import CheckpointError, describe_mismatch, load_checkpoint, state_dict_of
from gemnet.detector_weights import detector_file
from gemnet.errors import GemnetError
from gemnet.genome import Genome
from gemnet.loading import check_genome
from gemnet.models import GenomeSource, genome_for
from gemnet.registry import MODELS
from gemnet.timm_checkpoints import said_by
from gemnet.weights import find_weights, packaged_weights, verify_weights


class BackboneError(GemnetError):
    """An option of the backbone that its network doesn't have."""


def resolve_genome(arch: str | None = None, genome: GenomeSource | None = None) -> Genome:
    """The genome that a backbone's ``arch`` or ``genome`` stands for.

    Raises:
        BackboneError: neither or both are given.
        GemnetError: no such name, or no genome.
    """
    if arch is not None and genome is None:
        return genome_for(arch)
    if genome is not None and arch is None:
        return Genome.read(genome)
    given = "neither" if arch is None else f"arch={arch!r} and a genome"
    raise BackboneError(
        f"A GEMNet backbone is built from arch='gemnet_b' or from genome='path/to/genome.json'; got {given}."
    )


def check_levels(genome: Genome, out_indices: Sequence[int] | None) -> tuple[int, ...]:
    """The levels of a genome's pyramid that a backbone returns; for None the last four, or all where there are fewer.

    Raises:
        BackboneError: no indices, one out of range, or not in ascending order.
    """
    count = len(genome.levels)
    chosen = tuple(range(max(0, count - 4), count)) if out_indices is None else tuple(out_indices)
    sizes = ", ".join(f"{n}: stride {level.reduction}" for n, level in enumerate(genome.levels))
    for index in chosen:
        if type(index) is not int or not 0 <= index < count:
            raise BackboneError(f"out_indices holds {index!r}; this network's levels are {sizes}.")
    if not chosen or list(chosen) != sorted(set(chosen)):
        raise BackboneError(f"out_indices is {chosen}; expected some of {sizes}, in ascending order.")
    return chosen


@MODELS.register_module()
class GEMNet(BaseModule):
    """The stem and stages of a GEMNet, giving levels of its feature pyramid.

    Keys of the state dict are those of the timm model without head and classifier, so weights go from one to the other.

    Args:
        arch: a name known to `gemnet.genome_for`, such as ``gemnet_b``.
        genome: instead, a genome: the path of its JSON, its dict, or a `Genome`.
        out_indices: levels to return; ``gemnet_b`` has 0, 1, 2, 3 at strides 4, 8, 16, 32. Stages after the last
            one are not built. By default the last four: a MobileNetV2 has a level at stride 2 before them.
        frozen_stages: 0 freezes the stem, n the stem and the stages up to level n - 1; -1 nothing. Frozen means: no
            gradients, norms with fixed statistics, whatever `train` is told.
        norm_eval: whether all norms keep their statistics while training.
        with_cp: whether blocks are computed again in the backward pass, which saves memory. Statistics of norms are
            updated once all the same.
        drop_path_rate: stochastic depth of the last block.
        in_channels: channels of the images.
        norm_cfg: norms in the place of batch norm: ``dict(type='SyncBN')`` for statistics over all processes, or
            ``dict(type='GN', num_groups=32)`` (as many groups as divide the channels, at most that many), with
            ``requires_grad=False`` where scales and shifts are not to learn. Weights of batch norms keep scale and
            shift in either.
        output_stride: largest stride of the levels: stages that would go beyond keep the size, and their windows are
            dilated, as in a DC5 detector with 16. None: as the genome says.
        channels_last: whether levels are handed on in channels_last on a CPU, where neck and heads then follow: a
            training step takes two thirds of the time. Heads that look at tensors by ``view`` can't take it.
        init_cfg: weights: a path or a zoo tag (``gemnet_a.imagenette96``), or
            ``dict(type='Pretrained', checkpoint=<either>)``; None for none.

    Raises:
        BackboneError: an option that the network doesn't have.
        GemnetError: no such architecture, or no genome.
    """

    def __init__(
        self,
        arch: str | None = None,
        genome: GenomeSource | None = None,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        drop_path_rate: float = 0.0,
        in_channels: int = 3,
        norm_cfg: Mapping[str, Any] | None = None,
        output_stride: int | None = None,
        channels_last: bool = False,
        init_cfg: str | os.PathLike[str] | dict[str, Any] | list[Any] | None = None,
    ) -> None:
        if isinstance(init_cfg, str | os.PathLike):
            init_cfg = {"type": "Pretrained", "checkpoint": os.fspath(init_cfg)}
        super().__init__(init_cfg)
        self.genome = resolve_genome(arch, genome)
        self.out_indices = check_levels(self.genome, out_indices)
        levels = self.genome.levels
        if type(frozen_stages) is not int or not -1 <= frozen_stages <= len(levels):
            raise BackboneError(
                f"frozen_stages is {frozen_stages!r}; expected -1 (nothing), 0 (the stem) or 1 to {len(levels)} (the "
                "stages up to that level)."
            )
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.out_channels = tuple(levels[index].width for index in self.out_indices)
        net = network.GEMNet(
            self.genome,
            num_classes=0,
            in_chans=in_channels,
            drop_path_rate=drop_path_rate,
            output_stride=output_stride,
        )
        self.strides = strides_of(self.genome, self.out_indices, output_stride)
        self.channels_last = channels_last
        self._ends = {levels[index].stage for index in self.out_indices}
        self.stem = net.stem
        self.stages = net.stages[: max(self._ends) + 1]
        if norm_cfg is not None:
            _replace_norms(self, norm_cfg)
        self._freeze()

    def init_weights(self) -> None:
        """Loads what ``init_cfg`` names; without one the weights stay as they were drawn.

        Raises:
            CheckpointError: the file can't be read, or its weights are those of another network.
            GemnetError: no such tag in the zoo.
        """
        if not self.init_cfg:
            return
        if not (isinstance(self.init_cfg, dict) and self.init_cfg.get("type") == "Pretrained"):
            super().init_weights()
            return
        load_backbone_weights(self, self.init_cfg["checkpoint"], self.init_cfg.get("prefix"))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Levels ``out_indices`` of images ``batch x in_channels x h x w``, largest first."""
        if x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        levels = []
        for number, stage in enumerate(self.stages):
            for block in stage.children():
                if self.with_cp and self.training and torch.is_grad_enabled():
                    x = network.computed_again(block, x)
                else:
                    x = block(x)
            if number in self._ends:
                levels.append(x if self.channels_last else x.contiguous())
        return tuple(levels)

    def train(self, mode: bool = True) -> GEMNet:
        """Sets training or evaluation mode; frozen parts and, with ``norm_eval``, norms stay in evaluation."""
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _frozen_parts(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        last = self.genome.levels[self.frozen_stages - 1].stage if self.frozen_stages else -1
        return [self.stem, *self.stages[: last + 1]]

    def _freeze(self) -> None:
        for part in self._frozen_parts():
            part.eval()
            part.requires_grad_(False)


def strides_of(genome: Genome, levels: Sequence[int], output_stride: int | None = None) -> tuple[int, ...]:
    """Strides of some levels, where none is larger than ``output_stride``."""
    reductions = (genome.levels[index].reduction for index in levels)
    return tuple(each if output_stride is None else min(each, output_stride) for each in reductions)


def _replace_norms(module: nn.Module, norm_cfg: Mapping[str, Any]) -> None:
    """Puts the norms of MMCV's ``norm_cfg`` in the place of batch norms, in place.

    Raises:
        BackboneError: another kind of norm, or an option that it doesn't have.
    """
    options = dict(norm_cfg)
    kind, learns = options.pop("type", None), options.pop("requires_grad", True)
    known = {"BN": {"eps", "momentum"}, "BN2d": {"eps", "momentum"}, "SyncBN": {"eps", "momentum"}}
    known["GN"] = {"eps", "num_groups"}
    if kind not in known:
        raise BackboneError(f"norm_cfg.type is {kind!r}; a GEMNet has norms of type {', '.join(known)}.")
    for name in options:
        if name not in known[kind]:
            raise BackboneError(f"norm_cfg.{name} is no option of {kind}; it has {', '.join(sorted(known[kind]))}.")
    for parent in list(module.modules()):
        for name, norm in parent.named_children():
            if not isinstance(norm, nn.BatchNorm2d):
                continue
            eps, momentum = options.get("eps", norm.eps), options.get("momentum", norm.momentum)
            if kind == "GN":
                groups = math.gcd(int(options.get("num_groups", 32)), norm.num_features)
                new: nn.Module = nn.GroupNorm(groups, norm.num_features, eps)
            elif kind == "SyncBN":
                new = nn.SyncBatchNorm(norm.num_features, eps, momentum)
            else:
                new = nn.BatchNorm2d(norm.num_features, eps, momentum)
            new.load_state_dict({key: norm.state_dict()[key] for key in new.state_dict()})  # GEMNet's own beginning
            new.requires_grad_(bool(learns))
            setattr(parent, name, new)


def load_backbone_weights(module: GEMNet, source: str | os.PathLike[str], prefix: str | None = None) -> None:
    """Loads a backbone's weights from a file or from the zoo.

    Args:
        module: the backbone.
        source: the path of a ``.pth`` or ``.safetensors`` file (a classifier's, a detector's or a backbone's), or
            ``<architecture>.<tag>`` of packaged weights, or the name of a published detector.
        prefix: what the wanted keys start with in the file; found by itself among none, ``backbone.`` (MMDetection's
            detectors), ``backbone.body.`` (torchvision's), ``backbone.bottom_up.body.`` and ``backbone.body.``
            (Detectron2's), ``network.`` (our classifiers) and ``model.``.

    Raises:
        CheckpointError: the file can't be read, or its weights are those of another network.
        GemnetError: no such tag.
    """
    name = os.fspath(detector_file(source))
    if not os.path.isfile(os.path.expanduser(name)) and _looks_like_tag(name):
        known = find_weights(name)
        checkpoint = {**load_checkpoint(verify_weights(known)), "genome": known.fingerprint}
    else:
        checkpoint = load_checkpoint(name)
    about = said_by(checkpoint, name)
    fingerprint = checkpoint.get("genome", about.fingerprint)
    check_genome(about.replace(genome=None, fingerprint=fingerprint), module.genome.fingerprint, name)
    weights = state_dict_of(checkpoint)
    own = module.state_dict()
    usual = ("", "backbone.", "backbone.body.", "backbone.bottom_up.body.", "network.", "model.")
    prefixes = usual if prefix is None else (prefix.rstrip(".") + ".",)
    chosen = max(prefixes, key=lambda start: sum(start + key in weights for key in own))
    weights = {key.removeprefix(chosen): value for key, value in weights.items() if key.startswith(chosen)}
    # A backbone always lacks the classifier and may lack the last stages: further keys are no sign of another network.
    problem = describe_mismatch(module, weights, extra_is_fine=True)
    if problem:
        raise CheckpointError(f"{name}: these are the weights of another network: {problem}.")
    module.load_state_dict({key: weights[key] for key in own})


def _looks_like_tag(name: str) -> bool:
    return name in packaged_weights() or (
        "." in name and os.sep not in name and not name.endswith((".pth", ".pt", ".safetensors", ".bin"))
    )

"""GEMNet: the network of a genome, with timm's model contract.

stem -> stages -> head -> global pool -> classifier. Stem and stages are top-level sequential modules, so features are
taken without hooks.
"""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from timm.layers import SelectAdaptivePool2d, calculate_drop_path_rates
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from gemnet.cell import Cell
from gemnet.errors import GemnetError, GenomeError
from gemnet.genome import Genome, LayerSpec
from gemnet.macs import trained_cost
from gemnet.operations import parse_operation
from gemnet.private_timm import feature_take_indices
from gemnet.program import Program

MAX_PARAMS = 2_000_000_000
"""Eight gigabytes of weights."""
MAX_VALUES = 20_000_000_000
"""Activations and weights that one image's pass reads and writes: eighty gigabytes."""


class GEMNet(nn.Module):
    """A network built from a genome.

    Args:
        genome: a `Genome`, its dict, or the path of its JSON.
        num_classes: classes of the classifier; 0 for none; the genome's by default.
        in_chans: channels of the images.
        global_pool: ``avg``, ``max``, ``avgmax``, ``catavgmax`` or ``''``.
        output_stride: smallest size of the last features as a fraction of the image's; stages that would go below
            are dilated instead. Every pixel that both have is then the same as without (but for squeeze-excitation,
            whose mean is over more pixels), so that trained weights stay what they are.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; earlier blocks get less, linearly.
        device: where parameters are made.
        dtype: what type they have.

    Raises:
        GenomeError: the genome is not one, can't have this output stride, or is of a network that no machine holds.
        GemnetError: a classifier without a pool, a rate outside [0, 1), fewer than no classes or one channel.
    """

    def __init__(
        self,
        genome: Genome | Mapping[str, Any] | str,
        num_classes: int | None = None,
        in_chans: int = 3,
        global_pool: str = "avg",
        output_stride: int | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        dd = {"device": device, "dtype": dtype}
        super().__init__()
        self.genome = genome = Genome.read(genome)
        self.num_classes = genome.num_classes if num_classes is None else num_classes
        _check_count("num_classes", self.num_classes, 0)
        _check_count("in_chans", in_chans, 1)
        _check_size(genome, self.num_classes, in_chans)
        self.in_chans = in_chans
        for name, rate in (("drop_rate", drop_rate), ("drop_path_rate", drop_path_rate)):
            if not 0 <= rate < 1:
                raise GemnetError(f"{name} lies from 0 to below 1, got {rate!r}.")
        self.drop_rate = drop_rate
        self.grad_checkpointing = False

        self.stem, channels = _sequence(genome.stem, in_chans, genome.activation, dd)
        reduction = 1
        for layer in genome.stem:
            reduction *= layer.stride
        if output_stride is not None and (output_stride < reduction or output_stride & (output_stride - 1)):
            raise GenomeError(
                f"output_stride is {output_stride}; expected a power of two of at least {reduction}, the stem's."
            )
        ends = {level.stage for level in genome.levels}
        blocks = list(genome.blocks())
        rates = calculate_drop_path_rates(drop_path_rate, len(blocks))
        dilation = 1
        stages: list[nn.Sequential] = []
        self.stage_ends: list[int] = []
        self.feature_info: list[dict[str, Any]] = []
        for number, stage in enumerate(genome.stages):
            cells = nn.Sequential()
            for place, block in enumerate(blocks):
                if block.stage != number:
                    continue
                stride = block.stride
                dilates = output_stride is not None and reduction * stride > output_stride
                cells.append(
                    Cell(
                        genome.cells[block.cell],
                        block.in_channels,
                        block.width,
                        stride=stride,
                        dilation=dilation,
                        activation=genome.activation,
                        drop_path=rates[place],
                        dilates=dilates,
                        **dd,
                    )
                )
                if dilates:
                    dilation *= stride
                else:
                    reduction *= stride
            stages.append(cells)
            channels = stage.width
            if number in ends:
                self.stage_ends.append(number)
                self.feature_info.append(
                    {"num_chs": channels, "reduction": reduction, "module": f"stages.{number}", "stage": number}
                )
        self.stages = nn.Sequential(*stages)

        self.head, self.num_features = _sequence(genome.head, channels, genome.activation, dd)
        self.global_pool = SelectAdaptivePool2d(pool_type=global_pool)
        self.flatten = nn.Flatten(1) if global_pool else nn.Identity()
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        self.classifier = self._make_classifier(dd)
        self.init_weights()

    def _make_classifier(self, dd: dict[str, Any]) -> nn.Module:
        if self.num_classes == 0:
            return nn.Identity()
        if self.global_pool.is_identity():
            raise GemnetError(
                f"global_pool is '', but a classifier of {self.num_classes} classes reads pooled features. Give it a "
                "pool such as 'avg', or num_classes=0."
            )
        classifier = nn.Linear(self.head_hidden_size, self.num_classes, **dd)
        _init_module(classifier)
        return classifier

    def train(self, mode: bool = True) -> "GEMNet":
        """Sets training or evaluation mode; warns of a deployed network that its classifier alone would learn."""
        if mode and any(isinstance(module, Program) for module in self.modules()):
            warnings.warn(
                "This network is deployed (gemnet.deploy): its convolutions and norms are collapsed and have no "
                "gradients, so that nothing but the classifier learns. Train the network it was made of, and deploy "
                "that again.",
                stacklevel=2,
            )
        super().train(mode)
        return self

    def init_weights(self) -> None:
        """Draws all weights anew: convolutions from N(0, 2 / fan_out), norms at identity, edges' weights at 1/2."""
        for module in self.modules():
            _init_module(module)

    def __prepare_scriptable__(self) -> None:
        """What `torch.jit.script` calls first.

        Raises:
            GemnetError: always.
        """
        raise GemnetError(
            "torch.jit.script can't compile a GEMNet: its cells follow graphs that are data. Use torch.jit.trace, "
            "torch.compile or torch.export (`tools/export.py --to torch-export`)."
        )

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that decay would bias: the edges' weights."""
        return {name for name, _ in self.named_parameters() if ".edge_weights." in name}

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameters into layers, for layer-wise learning rates."""
        blocks = r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"
        return {"stem": r"^stem", "blocks": [(blocks, None), (r"^head", (99999,))]}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trades time for memory: activations inside a cell are computed again in the backward pass.

        Statistics of norms are updated once all the same.
        """
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier for ``num_classes`` (0: none), and another global pool unless None.

        Raises:
            GemnetError: fewer than no classes, or a classifier without a pool.
        """
        _check_count("num_classes", num_classes, 0)
        weight = next(self.stem.parameters())
        dd = {"device": weight.device, "dtype": weight.dtype}
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = SelectAdaptivePool2d(pool_type=global_pool)
            self.flatten = nn.Flatten(1) if global_pool else nn.Identity()
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        self.classifier = self._make_classifier(dd)
        for module in (self.global_pool, self.flatten, self.classifier):
            module.train(self.training)

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[torch.Tensor] | tuple[torch.Tensor, list[torch.Tensor]]:
        """Features of several levels of the pyramid.

        Args:
            x: images, ``batch x in_chans x h x w``.
            indices: last n levels if an int, all if None, else these levels.
            norm: accepted for timm; levels have no norm of their own.
            stop_early: leave out what follows the last level asked for.
            output_fmt: ``NCHW``.
            intermediates_only: return the levels only.

        Returns:
            The levels, or (last features, levels).
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt is {output_fmt!r}; GEMNet gives 'NCHW'.")
        take, last = feature_take_indices(len(self.stage_ends), indices)
        wanted = {self.stage_ends[i] for i in take}
        end = self.stage_ends[last] + 1 if stop_early else len(self.stages)
        intermediates = []
        x = self.stem(x)
        for number, stage in enumerate(self.stages[:end]):
            x = self._run(stage, x)
            if number in wanted:
                intermediates.append(x)
        if intermediates_only:
            return intermediates
        if end == len(self.stages):
            x = self.head(x)
        return x, intermediates

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Removes what the given levels don't need; returns the levels as indices from the front."""
        take, last = feature_take_indices(len(self.stage_ends), indices)
        end = self.stage_ends[last] + 1
        ends_here = prune_norm or prune_head or end < len(self.stages)
        self.stages = self.stages[:end]
        self.stage_ends = self.stage_ends[: last + 1]
        if ends_here:
            self.head = nn.Sequential().train(self.training)
            self.num_features = self.feature_info[last]["num_chs"]
            self.reset_classifier(0, "")
        return take

    def _run(self, stage: nn.Module, x: torch.Tensor) -> torch.Tensor:
        # is_scripting isn't in torch.jit's __all__; TorchScript knows it in a condition only.
        if self.grad_checkpointing and torch.is_grad_enabled() and not torch.jit.is_scripting():  # type: ignore[attr-defined]
            for block in stage.children():
                x = computed_again(block, x)
            return x
        return stage(x)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """The last feature map, ``batch x num_features x h / s x w / s``, ``s`` 32 or, in forms for 32x32 images, 8."""
        x = self.stem(x)
        for stage in self.stages:
            x = self._run(stage, x)
        return self.head(x)

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Pooled features (``pre_logits``) or logits from the last feature map."""
        x = self.flatten(self.global_pool(x))
        if self.drop_rate > 0.0:
            x = F.dropout(x, p=self.drop_rate, training=self.training)
        return x if pre_logits else self.classifier(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, ``batch x num_classes``, of images, ``batch x in_chans x h x w``."""
        return self.forward_head(self.forward_features(x))


def _check_count(name: str, value: int, least: int) -> None:
    if value < least:
        raise GemnetError(f"{name} is at least {least}{' (no classifier)' if least == 0 else ''}, got {value!r}.")


def _check_size(genome: Genome, num_classes: int, in_chans: int) -> None:
    """Refuses a network that no machine holds: a genome of a few lines can stand for one.

    Raises:
        GenomeError: more parameters or activations than `MAX_PARAMS`, `MAX_VALUES`.
    """
    size = trained_cost(genome, None, num_classes, in_chans)
    for count, most, what in (
        (size.params, MAX_PARAMS, "parameters"),
        (size.traffic, MAX_VALUES, f"values to read and write for one image of {genome.input_size} pixels"),
    ):
        if count > most:
            raise GenomeError(
                f"The network would have {count:,} {what}; at most {most:,} are built. Lower widths, depths or "
                "inner_ratio, or the number of classes."
            )


def computed_again(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """``block(x)``, whose activations are computed a second time in the backward pass instead of kept.

    Statistics of norms are updated once all the same.
    """
    if torch.compiler.is_compiling():  # a compiler refuses these contexts, and updates statistics once by itself
        return checkpoint(block, x, use_reentrant=False)
    return checkpoint(block, x, use_reentrant=False, context_fn=partial(_recompute_contexts, block))


def _recompute_contexts(block: nn.Module) -> tuple[Any, Any]:
    return contextlib.nullcontext(), _statistics_kept(block)


@contextlib.contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Norms record the batch's statistics in copies that are thrown away: the first pass has recorded them already."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm) and module.training]
    kept = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        norm._buffers.update({name: value.clone() for name, value in norm._buffers.items() if value is not None})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)


def _sequence(
    layers: tuple[LayerSpec, ...], channels: int, activation: str, dd: dict[str, Any]
) -> tuple[nn.Sequential, int]:
    """Operations one after another, and the channels they end with."""
    modules = nn.Sequential()
    for layer in layers:
        width = layer.width or channels
        modules.append(parse_operation(layer.op).build(channels, width, layer.stride, 1, activation, dd))
        channels = width
    return modules, channels


def _init_module(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.ParameterDict):
        for weight in module.parameters():
            nn.init.zeros_(weight)

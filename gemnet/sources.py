"""Networks that can be compared: built from a seed, with the costs of what is built."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

import gemnet.models  # noqa: F401  (registers its networks with timm)
from gemnet.errors import GemnetError, nearest
from gemnet.genome import Genome
from gemnet.macs import cost, macs
from gemnet.network import GEMNet


class NetworkError(GemnetError):
    """A network that does not exist or can't be built for the images; the message names it."""


@dataclass(frozen=True)
class Images:
    """What a network sees and says.

    Args:
        side: of the images in pixels.
        channels: 1 or 3.
        classes: number of classes.
    """

    side: int
    channels: int
    classes: int


class Source(Protocol):
    """How a network is built; picklable, since worker processes build it for themselves."""

    def build(self, images: Images) -> nn.Module:
        """The network, initialised from torch's global generator."""
        ...


@dataclass(frozen=True)
class GenomeSource:
    """The network of a genome."""

    genome: Genome

    def build(self, images: Images) -> nn.Module:
        """See `Source.build`."""
        return GEMNet(self.genome, num_classes=images.classes, in_chans=images.channels)


@dataclass(frozen=True)
class TimmSource:
    """A network timm knows by name, untrained.

    Args:
        arch: the name.
        options: further keyword arguments of ``timm.create_model``.
    """

    arch: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, images: Images) -> nn.Module:
        """See `Source.build`."""
        if not timm.is_model(self.arch):
            raise NetworkError(f"timm has no network {self.arch!r}.{nearest(self.arch, timm.list_models())}")
        return timm.create_model(
            self.arch, pretrained=False, num_classes=images.classes, in_chans=images.channels, **self.options
        )


@dataclass(frozen=True)
class PythonSource:
    """A network of the user's own.

    Args:
        target: ``module:function``; the function takes ``num_classes``, ``in_chans`` and ``options``.
        options: further keyword arguments.
    """

    target: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, images: Images) -> nn.Module:
        """See `Source.build`."""
        return self._function()(num_classes=images.classes, in_chans=images.channels, **self.options)

    def digest(self) -> str:
        """Hex digits that change with the file the function is defined in; "" where it has none."""
        try:
            file = inspect.getsourcefile(self._function())
            return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
        except (OSError, TypeError):  # built in, or compiled
            return ""

    def _function(self) -> Callable[..., nn.Module]:
        module, _, function = self.target.partition(":")
        if not function:
            raise NetworkError(f"build is 'module:function', got {self.target!r}.")
        try:
            return getattr(importlib.import_module(module), function)
        except ImportError as error:
            raise NetworkError(
                f"{self.target!r} can't be imported ({error}). Put the module's folder on PYTHONPATH."
            ) from None
        except AttributeError:
            raise NetworkError(f"Module {module!r} has no {function!r}.") from None


@dataclass(frozen=True)
class Network:
    """A network with its costs at the images it is compared on.

    Args:
        name: of the entry in the comparison; several forms of one network share it.
        form: which of them; "" where there is one.
        source: how it is built.
        macs: multiply-adds of convolutions and linear layers for one image.
        params: number of parameters.
        fingerprint: 16 hex digits that change when the network does.
        group: what a control is one of, such as ``random cells``; "" for a network that stands for itself.
        time: of the deployed network, as a multiple of the time of what it is compared with; NaN where not measured.
    """

    name: str
    form: str
    source: Source
    macs: int
    params: int
    fingerprint: str
    group: str = ""
    time: float = math.nan

    @property
    def title(self) -> str:
        """Name and form."""
        return f"{self.name} ({self.form})" if self.form else self.name


def describe(name: str, source: Source, images: Images, form: str = "", group: str = "") -> Network:
    """A network with its costs.

    Raises:
        NetworkError: it can't be built, can't run on these images, or gives something else than a logit a class.
    """
    if isinstance(source, GenomeSource):
        costs = cost(source.genome, images.side, images.classes, images.channels)
        return Network(name, form, source, costs.macs, costs.params, source.genome.fingerprint, group)
    try:
        model = build(source, images, seed=0)
        total = counted_macs(model, images)
    except GemnetError as error:
        raise NetworkError(f"networks: {name!r}: {error}") from error
    except Exception as error:  # a user's function or a timm network may raise anything
        text = " ".join(str(error).split())[:400]
        raise NetworkError(
            f"Network {name!r} can't be built for {images.side}x{images.side} images: {type(error).__name__}: {text}"
        ) from error
    if not total:
        raise NetworkError(
            f"Network {name!r} has no MACs to compare it by: none of its modules is a convolution or linear layer."
        )
    params = sum(parameter.numel() for parameter in model.parameters())
    # The modules and their settings, and all that is learnt: the same whatever the version of timm calls them.
    shapes = [(key, tuple(value.shape)) for key, value in model.state_dict().items()]
    code = source.digest() if isinstance(source, PythonSource) else ""  # what a module does is seen in its code only
    fingerprint = hashlib.sha256(f"{source!r}\n{model!r}\n{shapes!r}{code}".encode()).hexdigest()[:16]
    return Network(name, form, source, total, params, fingerprint, group)


def build(source: Source, images: Images, seed: int) -> nn.Module:
    """A freshly initialised network; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return source.build(images)


def count_macs(source: Source, images: Images) -> int:
    """Multiply-adds of a network for one image: convolutions and linear layers, as `gemnet.macs` counts them.

    A genome's are computed. Any other network is built and run on one image, and what its modules of these kinds do is
    counted; products of two activations (attention) are not.

    Raises:
        NetworkError: what comes out is not one logit a class.
    """
    if isinstance(source, GenomeSource):
        return macs(source.genome, images.side, images.classes, images.channels)
    return counted_macs(build(source, images, seed=0), images)


def counted_macs(model: nn.Module, images: Images) -> int:
    """`count_macs` of a built network, which is left in eval mode."""
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)
        if isinstance(module, nn.Linear):
            total += output.numel() // module.out_features * weight.numel()
        else:  # every position of the output (transposed: of the input) meets every weight once
            positions = inputs[0] if isinstance(module, _ConvTransposeNd) else output
            total += positions[0, 0].numel() * weight.numel()

    kinds = (nn.Linear, _ConvNd)
    hooks = [module.register_forward_hook(count) for module in model.modules() if isinstance(module, kinds)]
    try:
        with torch.no_grad():
            logits = model.eval()(torch.zeros(1, images.channels, images.side, images.side))
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (1, images.classes):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise NetworkError(f"it gives {found} for one image, expected one logit a class: (1, {images.classes}).")
    return total

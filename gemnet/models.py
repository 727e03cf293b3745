"""GEMNet for timm.

Paper: `NASGEM: Neural Architecture Search via Graph Embedding Method` (Cheng et al., AAAI 2021) -
https://arxiv.org/abs/2007.04452

``gemnet_a``, ``gemnet_b``, ``gemnet_c`` are the ImageNet form (stride 32, four levels, 1000 classes), the same with
``_cifar`` the form for 32x32 images (stride 8, four levels, 10 classes), with ``_fast`` those searched for time, with a
date earlier networks of that name; `gemnet` is the network of any genome, and `register` gives such a genome a name of
its own. The bare names are untrained; weights have tags (`gemnet.weights`).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model, resolve_pretrained_cfg

from gemnet.errors import GemnetError
from gemnet.genome import Genome
from gemnet.loading import check_genome, teach_timm
from gemnet.metadata import Metadata
from gemnet.network import GEMNet
from gemnet.registered import genome_for, register_genome, registered_names
from gemnet.trained import TrainedNetwork, find_trained
from gemnet.weights import packaged_weights, verify_folder, verify_weights

__all__ = ["genome_for", "register", "registered_names"]

GenomeSource = Genome | Mapping[str, Any] | str | os.PathLike[str]

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

teach_timm()
_trained: dict[str, TrainedNetwork] = {}
"""Names that were registered with weights."""
DEFAULT = "gemnet_b"
"""The architecture that `gemnet` stands for when no genome is given."""


def _cfg(genome: Genome, side: int | None = None, **changes: Any) -> dict[str, Any]:
    size = genome.input_size if side is None else side
    last = -(-size // (genome.levels[-1].reduction * math.prod(layer.stride for layer in genome.head)))
    small = size <= 64
    return {
        "url": "",
        "num_classes": genome.num_classes,
        "input_size": (3, size, size),
        "pool_size": (last, last),
        "crop_pct": 1.0 if small else 0.875,
        "interpolation": "bilinear" if small else "bicubic",
        "mean": CIFAR_MEAN if small else IMAGENET_DEFAULT_MEAN,
        "std": CIFAR_STD if small else IMAGENET_DEFAULT_STD,
        "first_conv": "stem.0.conv",
        "classifier": "classifier",
        "license": "apache-2.0",
        "paper_ids": "arXiv:2007.04452",
        "paper_name": "NASGEM: Neural Architecture Search via Graph Embedding Method",
        **changes,
    }


def _weights_cfg(genome: Genome, about: Metadata, **changes: Any) -> dict[str, Any]:
    return {**_cfg(genome, about.input_size), **about.pretrained_cfg(), **changes}


def _cfgs_of(arch: str, genome: Genome) -> dict[str, dict[str, Any]]:
    if arch in _trained:
        return {arch: _weights_cfg(genome, _trained[arch].metadata, file=str(_trained[arch].weights))}
    # The star, in the last place, keeps the bare name untrained: otherwise timm gives a bare name the class count of
    # whichever tag has weights (and a first tag with weights goes before a star that precedes it).
    tagged = {
        name: _weights_cfg(genome, weights.metadata(), file=str(weights.path), description=weights.description)
        for name, weights in packaged_weights().items()
        if name.split(".", 1)[0] == arch
    }
    return {**tagged, f"{arch}.untrained*": _cfg(genome)}


default_cfgs = generate_default_cfgs(
    {
        **{key: cfg for arch in registered_names() for key, cfg in _cfgs_of(arch, genome_for(arch)).items()},
        "gemnet.untrained*": _cfg(genome_for(DEFAULT)),
    }
)


def _create_gemnet(variant: str, genome: Genome, /, pretrained: bool = False, **kwargs: Any) -> Any:
    """Builds the network, through timm's own builder, which knows tags, feature extraction and adaptation."""
    if kwargs.pop("genome", None) is not None:
        raise GemnetError(
            f"{variant!r} has its genome, and was given another. The network of a genome is built by "
            "timm.create_model('gemnet', genome=...)."
        )
    if kwargs.get("features_only"):
        _check_levels(genome, kwargs.get("out_indices"))
    tag = kwargs.get("pretrained_cfg")
    if isinstance(tag, str) and tag not in default_cfgs[variant].cfgs:
        tags = [f"{variant}.{name}" for name in default_cfgs[variant].cfgs]
        others = [name for name in sorted(packaged_weights()) if name not in tags]
        of_others = f" Weights of other networks: {', '.join(others)}." if others else ""
        raise GemnetError(f"There is no {variant}.{tag}. There are: {', '.join(tags)}.{of_others}")
    if variant == "gemnet" and not isinstance(tag, Mapping):
        given = kwargs.pop("pretrained_cfg_overlay", None) or {}
        known = _cfg(genome)
        # What a genome says about its images outranks the defaults of the name `gemnet`.
        kwargs["pretrained_cfg_overlay"] = {
            **{key: known[key] for key in ("num_classes", "input_size", "pool_size", "mean", "std", "crop_pct")},
            **given,
        }
    if pretrained:
        _check_weights(variant, genome, kwargs)
    if pretrained and variant in _trained and not isinstance(tag, Mapping):
        overlay = kwargs.get("pretrained_cfg_overlay") or {}
        kwargs["pretrained_cfg_overlay"] = {**overlay, "state_dict": _trained[variant].state_dict()}
    model = build_model_with_cfg(
        GEMNet,
        variant,
        pretrained,
        genome=genome,
        feature_cfg={"out_indices": tuple(range(len(genome.levels))), "flatten_sequential": True},
        **kwargs,
    )
    if isinstance(model.pretrained_cfg, dict):
        model.pretrained_cfg.pop("state_dict", None)  # the tensors were handed over by it
    return model


def _check_levels(genome: Genome, indices: Any) -> None:
    """Refuses levels that a network doesn't have, which timm's feature extraction looks up unasked.

    Args:
        genome: the network's.
        indices: as timm has them: some levels, from the end where they are negative, or how many of the last.
    """
    count = len(genome.levels)
    levels = ", ".join(f"{number}: stride {level.reduction}" for number, level in enumerate(genome.levels))
    if isinstance(indices, int):
        if not 1 <= indices <= count:
            raise GemnetError(f"out_indices={indices} asks for the last {indices} levels; there are {levels}.")
    elif indices is not None:
        for index in indices:
            if not -count <= index < count:
                raise GemnetError(f"out_indices holds {index!r}; this network's levels are {levels}.")


def _check_weights(variant: str, genome: Genome, kwargs: Mapping[str, Any]) -> None:
    """Refuses weights that are not there, damaged or of another network, before anything is built."""
    cfg = resolve_pretrained_cfg(variant, kwargs.get("pretrained_cfg"), kwargs.get("pretrained_cfg_overlay"))
    if not cfg.has_weights and cfg.state_dict is None:
        tags = [name for name in packaged_weights() if name.split(".", 1)[0] == variant]
        there = f" There are: {', '.join(tags)}." if tags else " There are none for it yet; use pretrained=False."
        if variant == "gemnet":
            there = " Give the file: checkpoint_path='.../best.safetensors'; or gemnet.register('mynet', weights=...)."
        raise GemnetError(f"{variant!r} was asked for with pretrained=True, but this name carries no weights.{there}")
    if cfg.source == "local-dir":
        verify_folder(Path(cfg.file), genome.fingerprint)
    if variant in _trained:
        check_genome(_trained[variant].metadata, genome.fingerprint, _trained[variant].weights)
    own = {str(weights.path): weights for weights in packaged_weights().values()}
    if cfg.file in own:
        weights = own[cfg.file]
        verify_weights(weights)
        if weights.fingerprint != genome.fingerprint:
            raise GemnetError(
                f"{weights.file} belongs to another genome (fingerprint {weights.fingerprint}) than {variant!r} has "
                f"now ({genome.fingerprint})."
            )


@register_model
def gemnet(pretrained: bool = False, genome: GenomeSource | None = None, **kwargs: Any) -> Any:
    """The network of ``genome`` (path, dict or `Genome`); `gemnet_b`'s without one."""
    read = genome_for(DEFAULT) if genome is None else Genome.read(genome)
    return _create_gemnet("gemnet", read, pretrained, **kwargs)


@register_model
def gemnet_a(pretrained: bool = False, **kwargs: Any) -> Any:
    """GEMNet-A: about 100 M MACs at 224x224."""
    return _create_gemnet("gemnet_a", genome_for("gemnet_a"), pretrained, **kwargs)


@register_model
def gemnet_b(pretrained: bool = False, **kwargs: Any) -> Any:
    """GEMNet-B: about 300 M MACs at 224x224."""
    return _create_gemnet("gemnet_b", genome_for("gemnet_b"), pretrained, **kwargs)


@register_model
def gemnet_c(pretrained: bool = False, **kwargs: Any) -> Any:
    """GEMNet-C: about 470 M MACs at 224x224."""
    return _create_gemnet("gemnet_c", genome_for("gemnet_c"), pretrained, **kwargs)


@register_model
def gemnet_a_202611(pretrained: bool = False, **kwargs: Any) -> Any:
    """GEMNet-A of November 2026, searched for few multiply-adds: about 90 M MACs at 224x224."""
    return _create_gemnet("gemnet_a_202611", genome_for("gemnet_a_202611"), pretrained, **kwargs)


@register_model
def gemnet_b_202611(pretrained: bool = False, **kwargs: Any) -> Any:
    """GEMNet-B of November 2026, searched for few multiply-adds: about 300 M MACs at 224x224."""
    return _create_gemnet("gemnet_b_202611", genome_for("gemnet_b_202611"), pretrained, **kwargs)


@register_model
def gemnet_c_202611(pretrained: bool = False, **kwargs: Any) -> Any:
    """GEMNet-C of November 2026, searched for few multiply-adds: about 600 M MACs at 224x224."""
    return _create_gemnet("gemnet_c_202611", genome_for("gemnet_c_202611"), pretrained, **kwargs)


@register_model
def gemnet_a_cifar(pretrained: bool = False, **kwargs: Any) -> Any:
    """GEMNet-A for 32x32 images: about 6 M MACs."""
    return _create_gemnet("gemnet_a_cifar", genome_for("gemnet_a_cifar"), pretrained, **kwargs)


@register_model
def gemnet_b_cifar(pretrained: bool = False, **kwargs: Any) -> Any:
    """GEMNet-B for 32x32 images: about 12 M MACs."""
    return _create_gemnet("gemnet_b_cifar", genome_for("gemnet_b_cifar"), pretrained, **kwargs)


@register_model
def gemnet_c_cifar(pretrained: bool = False, **kwargs: Any) -> Any:
    """GEMNet-C for 32x32 images: about 24 M MACs."""
    return _create_gemnet("gemnet_c_cifar", genome_for("gemnet_c_cifar"), pretrained, **kwargs)


@register_model
def gemnet_a_cifar_fast(pretrained: bool = False, **kwargs: Any) -> Any:
    """GEMNet-A for 32x32 images, searched for time instead of multiply-adds: about 6 M MACs."""
    return _create_gemnet("gemnet_a_cifar_fast", genome_for("gemnet_a_cifar_fast"), pretrained, **kwargs)


@register_model
def gemnet_b_cifar_fast(pretrained: bool = False, **kwargs: Any) -> Any:
    """GEMNet-B for 32x32 images, searched for time instead of multiply-adds: about 10 M MACs."""
    return _create_gemnet("gemnet_b_cifar_fast", genome_for("gemnet_b_cifar_fast"), pretrained, **kwargs)


def check_name(name: str) -> None:
    """Refuses a name that no network can be given.

    Raises:
        GemnetError: the name is malformed, or stands for another network already.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise GemnetError(
            f"A network's name is made of letters, digits and '_' and starts with a letter, got {name!r}."
        )
    if name in registered_names() or timm.is_model(name):
        raise GemnetError(f"The name {name!r} stands for another network already. Choose another.")


def register(
    name: str, genome: GenomeSource | None = None, weights: str | os.PathLike[str] | None = None
) -> Callable[..., Any]:
    """Gives a network a name of its own in timm, and in mmdet through `gemnet.detection`, for this process.

    Args:
        name: letters, digits and underscores, such as ``mynet``.
        genome: a `Genome`, its dict, or the path of its JSON; by default the one that the weights carry.
        weights: what `gemnet.trained.find_trained` finds: a search's or a training's folder, or a file. With them
            ``pretrained=True`` loads them, and the model's timm configuration is theirs: classes, size, mean, std.

    Returns:
        The function that builds the network, as ``timm.create_model(name)`` does.

    Raises:
        GenomeError: the genome is not one.
        GemnetError: the name is malformed, or stands for another network already; the weights are of another network.
    """
    trained = None if weights is None else find_trained(weights)
    if genome is not None:
        read = Genome.read(genome)
    elif trained is not None:
        read = trained.genome
    else:
        raise GemnetError("register needs a genome, or weights that carry one.")
    if trained is not None:
        if trained.weights is None:
            raise GemnetError(f"{weights} holds no weights. Give genome={str(weights)!r} alone.")
        check_genome(trained.metadata, read.fingerprint, trained.weights)
        trained = replace(trained, metadata=trained.metadata.replace(genome=read, fingerprint=""))
    if name in registered_names() and genome_for(name) == read and _trained.get(name) == trained:
        return timm.models.model_entrypoint(name)
    check_name(name)

    def build(pretrained: bool = False, **kwargs: Any) -> Any:
        return _create_gemnet(name, read, pretrained, **kwargs)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"The network registered as {name!r}."
    register_genome(name, read)
    if trained is not None:
        _trained[name] = trained
    default_cfgs.update(generate_default_cfgs(_cfgs_of(name, read)))
    return register_model(build)

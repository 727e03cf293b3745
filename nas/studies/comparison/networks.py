"""From a comparison's entries to networks with names, forms and costs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gemnet.errors import GemnetError, nearest
from gemnet.genome import Genome
from gemnet.models import genome_for
from gemnet.sources import GenomeSource, Images, Network, PythonSource, Source, TimmSource, describe
from gemnet.strict import Component, ConfigError, check_options, keyword_names, typed
from nas.spaces.gemnet import GEMNetSpace
from nas.studies.comparison.config import ComparisonConfig
from nas.studies.comparison.controls import random_cells, rewired_cells
from nas.studies.comparison.peers import (
    TIMM_FAMILIES,
    Target,
    block_network,
    mobilenet,
    nasbench201_network,
    random_wiring_network,
    repvgg_network,
    resnet_network,
    timm_family,
)
from nas.studies.comparison.timing import RelativeTimes

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
FIXED = ("gemnet", "timm", "python")
FITTED: Mapping[str, Callable[..., Source]] = {
    "mobilenetv2": partial(mobilenet, "mobilenetv2"),
    "mobilenetv3_small": partial(mobilenet, "mobilenetv3_small"),
    "nasbench201": nasbench201_network,
    "random_wiring": random_wiring_network,
    "resnet": resnet_network,
    "repvgg": repvgg_network,
    **{family: partial(timm_family, family) for family in TIMM_FAMILIES},
    "block": block_network,
}
"""Peers that are made as wide as it takes to cost what the reference costs: its MACs, or its time."""
CONTROLS = {"random_cells": "random cells", "rewired": "rewired"}


@dataclass(frozen=True)
class NetworkEntry:
    """A network of the comparison in all its forms; the short runs choose one.

    Args:
        name: as tables show it.
        forms: at least one.
    """

    name: str
    forms: tuple[Network, ...]


def networks_compared(
    config: ComparisonConfig, images: Images, times: Path | None = None, say: Callable[[str], None] = lambda _: None
) -> tuple[NetworkEntry, ...]:
    """All entries of a comparison, the reference first.

    Args:
        config: the comparison.
        images: what the networks see.
        times: file of the times that were measured, of a comparison whose peers are fitted by time.
        say: hears of each time that is measured.

    Raises:
        ConfigError: an unknown type or option, a name used twice, no reference.
        NetworkError, PeerError, ControlError: a network that can't be had.
    """
    parts = [(_name(part), part) for part in config.networks]
    chosen = [part for name, part in parts if name == config.reference]
    if not chosen:
        there = ", ".join(name for name, _ in parts)
        raise ConfigError(
            f"reference is {config.reference!r}, but no network of the comparison has that name. There are: {there}. "
            "(A network's name is its arch, the stem of its genome's file or its type, unless name=... says otherwise.)"
        )
    if chosen[0].type not in FIXED:
        raise ConfigError(
            f"reference {config.reference!r} is of type {chosen[0].type!r}, which is itself fitted to the reference. "
            f"Use one of type {', '.join(FIXED)}."
        )
    if "forms" in chosen[0].options:
        raise ConfigError(
            f"reference {config.reference!r} has forms; the others are fitted to the cost of a single one."
        )
    reference = _entry(config.reference, chosen[0], images, None, None)
    clock = RelativeTimes(reference.forms[0], images, config.fit, times, say) if config.fit.by == "time" else None
    entries = [reference]
    for name, part in parts:
        if part is chosen[0]:
            continue
        if part.type in CONTROLS:
            entries += _controls(name, part, images, reference.forms[0])
        else:
            entries.append(_entry(name, part, images, reference.forms[0], clock))
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"Two networks are called {name!r}. Give one of them another name=...")
    if clock is None:
        return tuple(entries)
    return tuple(replace(one, forms=tuple(replace(net, time=clock.of(net)) for net in one.forms)) for one in entries)


def _name(part: Component) -> str:
    known = (*FIXED, *FITTED, *CONTROLS)
    if part.type not in known:
        raise ConfigError(f"networks: there is no type {part.type!r}.{nearest(part.type, known)}")
    options = part.options
    name = options.get("name")
    if name is None and part.type == "gemnet" and "genome" in options:
        name = re.split(r"[/\\]", str(options["genome"]))[-1].removesuffix(".json")
    if name is None and part.type == "python":
        name = str(options.get("build", "")).rpartition(":")[2]
    if name is None:
        name = options.get("arch") if part.type in ("gemnet", "timm") else options.get("block", part.type)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(f"networks: a name consists of letters, digits and _ . + -, got {name!r} ({part.type}).")
    return name


def _entry(
    name: str, part: Component, images: Images, reference: Network | None, clock: RelativeTimes | None
) -> NetworkEntry:
    options = {key: value for key, value in part.options.items() if key not in ("name", "forms")}
    forms = part.options.get("forms", [{}])
    if not isinstance(forms, list | tuple) or not forms or not all(isinstance(form, Mapping) for form in forms):
        raise ConfigError(f"networks: forms of {name!r} is a list of dicts of options, got {forms!r}.")
    networks = []
    for form in forms:
        label = ", ".join(f"{key} {value}" for key, value in form.items())
        source = _source(name, Component(part.type, {**options, **form}), images, reference, clock)
        networks.append(describe(name, source, images, label))
    labels = [network.form for network in networks]
    if len(set(labels)) != len(labels):
        raise ConfigError(f"networks: two forms of {name!r} are the same.")
    return NetworkEntry(name, tuple(networks))


def _source(
    name: str, part: Component, images: Images, reference: Network | None, clock: RelativeTimes | None
) -> Source:
    where, options = f"networks ({name})", dict(part.options)
    if part.type == "gemnet":
        check_options(("name", "arch", "genome"), options, where)
        if ("arch" in options) == ("genome" in options):
            raise ConfigError(f"{where}: type 'gemnet' needs either arch (a registered name) or genome (a path).")
        try:
            return GenomeSource(Genome.load(options["genome"]) if "genome" in options else genome_for(options["arch"]))
        except GemnetError as error:
            raise ConfigError(f"{where}: {error}") from error
    if part.type == "timm":
        return TimmSource(options.pop("arch", ""), options)
    if part.type == "python":
        if "build" not in options:
            raise ConfigError(f"{where}: type 'python' needs build='module:function'.")
        return PythonSource(options.pop("build"), options)
    assert reference is not None
    build = FITTED[part.type]
    known = [key for key in keyword_names(build) if key not in ("images", "target", "frame", "family")]
    key, unit = ("macs_ratio", "MACs") if clock is None else ("time_ratio", "time")
    ratio = options.pop(key, 1.0)
    check_options(["name", "forms", key, *known], options, where)
    if not isinstance(ratio, int | float) or not 0.01 <= ratio <= 100:
        raise ConfigError(f"{where}: {key} is a factor on the reference's {unit}, got {ratio!r}.")
    target = Target(ratio * reference.macs)
    if clock is not None:
        target = Target(ratio, clock.cost(name), "of the reference's time", True)
    if part.type == "block":
        options["frame"] = _reference_genome(reference, name)
    try:
        return build(images=images, target=target, **options)
    except GemnetError as error:
        raise ConfigError(f"{where}: {error}") from error
    except Exception as error:  # an option of a wrong type or beyond what the blocks can be built with
        raise ConfigError(f"{where}: can't be built with {options}: {type(error).__name__}: {error}") from error


def _controls(name: str, part: Component, images: Images, reference: Network) -> list[NetworkEntry]:
    where, options = f"networks ({name})", dict(part.options)
    check_options(("name", "count", "seed", *(("space",) if part.type == "random_cells" else ())), options, where)
    count, seed = options.get("count", 8), options.get("seed", 0)
    if not isinstance(count, int) or not isinstance(seed, int) or count < 1 or seed < 0:
        raise ConfigError(f"{where}: count is at least 1 and seed at least 0, got {count!r} and {seed!r}.")
    if part.type == "random_cells":
        space = options.get("space", {})
        known = [key for key in keyword_names(GEMNetSpace) if key not in ("num_classes", "in_chans", "input_size")]
        check_options(known, space, f"{where}.space")
        space = typed(GEMNetSpace, space, f"{where}.space")
        about: dict[str, Any] = {"input_size": images.side, "num_classes": images.classes, "in_chans": images.channels}
        genomes = random_cells(GEMNetSpace(**space, **about), reference.macs, count, seed)
    else:
        genomes = rewired_cells(_reference_genome(reference, name), images, count, seed)
    group = CONTROLS[part.type] if name == part.type else name
    return [
        NetworkEntry(f"{name}_{number}", (describe(f"{name}_{number}", GenomeSource(genome), images, group=group),))
        for number, genome in enumerate(genomes)
    ]


def _reference_genome(reference: Network, name: str) -> Genome:
    if not isinstance(reference.source, GenomeSource):
        raise ConfigError(
            f"networks ({name}) is made from the reference's genome, but {reference.name!r} has none. Use a reference "
            "of type 'gemnet'."
        )
    return reference.source.genome

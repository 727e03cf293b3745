"""What is compared: a config file of its own, read strictly."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemnet.detection.backbone import resolve_genome
from gemnet.errors import GemnetError
from gemnet.genome import Genome
from gemnet.strict import ConfigError, make
from nas.executors.options import WorkerOptions

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")
SET_HERE = {"arch", "genome", "init_cfg", "type"}
"""Arguments of a detector's backbone that the comparison sets itself."""
WEIGHTS_WAYS = "a path or a zoo tag in which {name} and {seed} stand for the backbone's, and * for anything"


@dataclass(frozen=True)
class Backbone:
    """A backbone of the comparison.

    Args:
        arch: a registered name, such as ``gemnet_a``.
        genome: or the path of a genome's JSON.
        name: as tables show it; by default arch, or the stem of the genome's file.
        weights: what it starts from, in place of the comparison's.
        options: further arguments of the detector's backbone, such as ``{'frozen_stages': 1}``.
    """

    arch: str | None = None
    genome: str | None = None
    name: str | None = None
    weights: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.arch is None) == (self.genome is None):
            raise ConfigError("backbones: each needs either arch (a registered name) or genome (a path).")
        if not NAME.fullmatch(self.title):
            raise ConfigError(f"backbones: a name consists of letters, digits and _ + -, got {self.title!r}.")
        for key in sorted(set(self.options) & SET_HERE):
            raise ConfigError(f"backbones ({self.title}): options has {key}, which arch, genome and weights set.")

    @property
    def title(self) -> str:
        """Its name."""
        return self.name or self.arch or Path(str(self.genome)).stem

    def read(self) -> Genome:
        """Its genome.

        Raises:
            ConfigError: there is none.
        """
        try:
            return resolve_genome(self.arch, self.genome)
        except GemnetError as error:
            raise ConfigError(f"backbones ({self.title}): {error}") from None


@dataclass(frozen=True)
class DetectorComparisonConfig:
    """A comparison of backbones in detectors.

    Args:
        detectors: configs of `tools/train.py`: paths, or names of ours. Their backbone is put in place.
        backbones: what is compared.
        reference: name of the backbone all others are compared with.
        weights: what backbones start from: a path or a zoo tag in which ``{name}`` and ``{seed}`` stand for the
            backbone's name and the training's seed, and ``*`` for anything. None: nothing, they are trained from
            scratch.
        metric: the figure by which the reference leads or not, as the evaluator calls it.
        seeds: of the trainings; the same for all, so that differences are paired.
        options: values put over every detector's config, such as ``{'train_cfg.max_epochs': 3}``.
        workers: processes that train, and compute threads of each.
    """

    detectors: tuple[str, ...]
    backbones: tuple[Backbone, ...]
    reference: str
    weights: str | None = None
    metric: str = "coco/bbox_mAP"
    seeds: tuple[int, ...] = (0, 1)
    options: Mapping[str, Any] = field(default_factory=dict)
    workers: WorkerOptions = field(default_factory=WorkerOptions)

    def __post_init__(self) -> None:
        names = [backbone.title for backbone in self.backbones]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"Two backbones are called {name!r}. Give one of them another name=...")
        if self.reference not in names:
            raise ConfigError(f"reference is {self.reference!r}; the backbones are {', '.join(names) or 'none'}.")
        if not self.detectors:
            raise ConfigError("detectors is empty. List configs, such as 'retinanet_gemnet_coco320'.")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(f"seeds lists different whole numbers from 0 up, at least one; got {list(self.seeds)}.")
        for key in self.options:
            if key.startswith("model.backbone.") or key == "randomness.seed":
                raise ConfigError(f"options: {key} is what the comparison sets itself (backbones, weights, seeds).")


def read_detector_comparison(data: Mapping[str, Any]) -> DetectorComparisonConfig:
    """A comparison from plain dicts.

    Raises:
        ConfigError: a key that does not exist (the nearest is named), one that is missing, or a value out of range.
    """
    return make(DetectorComparisonConfig, data, "")


def weights_of(config: DetectorComparisonConfig, backbone: Backbone, seed: int) -> str | None:
    """What a backbone starts from in the trainings of one seed: a path or a zoo tag; None for nothing.

    Raises:
        ConfigError: no file, or more than one, fits.
    """
    pattern = backbone.weights or config.weights
    if pattern is None:
        return None
    try:
        wanted = pattern.format(name=backbone.title, seed=seed)
    except (KeyError, IndexError, ValueError):
        raise ConfigError(f"weights is {WEIGHTS_WAYS}; got {pattern!r}.") from None
    if not glob.has_magic(wanted):
        return wanted
    found = sorted(glob.glob(wanted))
    if len(found) != 1:
        listed = ", ".join(found[:3]) or "no file"
        raise ConfigError(
            f"weights of {backbone.title}, seed {seed}: {wanted} should be one file, but is {listed}. Train the "
            "backbones first (tools/compare.py imagenette96_backbones), or set weights=None to start from "
            "nothing."
        )
    return found[0]

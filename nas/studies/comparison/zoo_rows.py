"""Networks from rows of the zoo, whose configs may be those of a comparison."""

from __future__ import annotations

from pathlib import Path

import timm
from torch import nn

from gemnet.config_files import read_file
from gemnet.sources import TimmSource, build
from gemnet.zoo.results import Result, ZooError, read_rows
from gemnet.zoo.rows import images_of
from nas.studies.comparison.config import read_comparison
from nas.studies.comparison.networks import networks_compared


def build_row(result: Result, repository: Path) -> tuple[nn.Module, int]:
    """The untrained network of a classifier's row, and the channels of its images.

    Raises:
        ZooError: it is in no comparison and timm doesn't know it.
        DataError: the data set, whose classes it is built for, is not there.
    """
    images = images_of(result.source, result.resolution)
    if "comparison" in Path(result.config).parts:
        config = read_comparison(read_file(repository / result.config))
        row = read_rows(result.figures, repository)[0]
        for entry in networks_compared(config, images):
            for network in entry.forms:
                if (network.name, network.form) == (row.get("network"), row.get("form", "")):
                    return build(network.source, images, seed=0), images.channels
    if not timm.is_model(result.network):
        raise ZooError(f"{result.name} can't be built: {result.config} has no such network, and timm doesn't know it.")
    return build(TimmSource(result.network), images, seed=0), images.channels

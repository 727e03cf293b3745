"""A comparison of two small networks on digits."""

from gemnet.cell_graph import CellGraph
from gemnet.sources import (
    Images,
)
from nas.executors.monitor import Monitor
from nas.studies.comparison.config import read_comparison
from nas.studies.comparison.run import (
    Comparison,
    ComparisonFolder,
    run_comparison,
)

DIGITS = Images(8, 1, 10)
CIFAR = Images(32, 3, 10)
CELL = CellGraph(
    ("dw3x3_bn_act", "dw5x5_bn_act", "conv1x1_bn_act", "identity", "max_pool_3x3"),
    frozenset({(0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (1, 5), (4, 6), (5, 6)}),
)


def settings_of(genome_file, **changes):
    data = {
        "data": {"source": "digits", "dev_fraction": 0.5},
        "recipe": {"batch_size": 64, "flip": False},
        "epochs": 1,
        "seeds": [0, 1],
        "lrs": [0.05, 0.2],
        "choice": {"epochs": 1, "subset": 0.3},
        "reference": "small",
        "networks": [{"type": "gemnet", "genome": genome_file}, {"type": "nasbench201", "cells": 1}],
        "workers": {"count": 0},
    }
    return {**data, **changes}


def config(genome_file, **changes):
    return read_comparison(settings_of(genome_file, **changes))


def compared(settings, path, final=False) -> Comparison:
    with ComparisonFolder(path) as folder:
        return run_comparison(settings, folder, final, Monitor())

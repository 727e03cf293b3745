"""What tests of comparisons share."""

import pytest
from comparison_doubles import CELL, compared, config

from gemnet.templates import template


@pytest.fixture(scope="session")
def genome_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("genome") / "small.json"
    template("cifar", "a").genome(CELL, width=0.5, inner_ratio=2).save(file)
    return str(file)


@pytest.fixture(scope="session")
def settings(genome_file):
    return config(genome_file)


@pytest.fixture(scope="session")
def finished(settings, tmp_path_factory):
    """A finished comparison and its folder."""
    path = tmp_path_factory.mktemp("comparison") / "work"
    return compared(settings, path), path

"""NAS-Bench-301's files become tables of genotypes."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemnet.darts import Genotype
from nas.spaces.darts import DARTS, cell_from_genotype, genotype_of
from nas.tables.official import convert
from nas.tables.read import read_table
from nas.tables.table import TableError

SPACE = DARTS()
DRAWN = SPACE.sample(4, np.random.default_rng(0))
GENOTYPES = [genotype_of(SPACE.unpack(DRAWN, k).cell) for k in range(4)]
PREFIX = "NetworkSelectorDatasetInfo:darts:"


def training(genotype: Genotype, accuracy: float, **changes: Any) -> dict[str, Any]:
    """A file's content, its edges numbered as the benchmark does: those into node 2 first, each by what it reads."""
    config: dict[str, Any] = {f"{PREFIX}layers": 8, f"{PREFIX}init_channels": 32}
    first = {2: 0, 3: 2, 4: 5, 5: 9}
    for cell in ("normal", "reduce"):
        pairs = getattr(genotype, cell)
        for node, start in first.items():
            own = pairs[2 * (node - 2) : 2 * (node - 1)]
            config |= {f"{PREFIX}edge_{cell}_{start + read}": op for op, read in own}
            if node > 2:
                config[f"{PREFIX}inputs_node_{cell}_{node}"] = "_".join(str(read) for _, read in sorted_by_read(own))
    return {
        "budget": 100,
        "optimized_hyperparamater_config": config,
        "info": [{"val_accuracy": accuracy, "model_parameters": 1.5e6}],
        "test_accuracy": accuracy - 1,
        "runtime": 3600.5,
        **changes,
    }


def sorted_by_read(pairs: tuple[tuple[str, int], ...]) -> list[tuple[str, int]]:
    return sorted(pairs, key=lambda pair: pair[1])


def folder_of(path: Path, *trainings: Any) -> Path:
    for number, content in enumerate(trainings):
        place = path / ("rs" if number % 2 else "bananas") / f"results_{number}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_trainings_become_genotypes_and_their_accuracies(tmp_path: Path, packed: bool) -> None:
    source = folder_of(
        tmp_path / "nb_301",
        *(training(genotype, 90.0 + k) for k, genotype in enumerate(GENOTYPES)),
        training(GENOTYPES[2], 95.0),
        training(GENOTYPES[3], 80.0, budget=50),  # of another fidelity
    )
    if packed:
        source = Path(shutil.make_archive(str(tmp_path / "nb_301"), "zip", tmp_path, "nb_301"))
    assert convert("nasbench301", source, tmp_path / "t.parquet") == 4
    table = read_table(tmp_path / "t.parquet")
    cells = [table.space.unpack(table.batch, k).cell for k in range(4)]
    rows = [cells.index(cell_from_genotype(genotype)) for genotype in GENOTYPES]
    assert table.metric("val_accuracy")[rows].tolist() == [90, 91, 92, 93]
    assert table.metric("val_accuracy_mean")[rows].tolist() == [90, 91, 93.5, 93]
    assert table.metric("test_accuracy")[rows].tolist() == [89, 90, 91, 92]
    assert table.metric("trainings")[rows].tolist() == [1, 1, 2, 1]
    assert table.space.params(table.batch) is not None


def test_an_archive_whose_members_point_elsewhere_writes_nothing_there(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    with zipfile.ZipFile(inner / "nb_301.zip", "w") as archive:
        for number, genotype in enumerate(GENOTYPES[:2]):
            archive.writestr(f"../results_{number}.json", json.dumps(training(genotype, 90.0)))
    assert convert("nasbench301", inner / "nb_301.zip", inner / "t.parquet") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]
    assert sorted(path.name for path in inner.iterdir()) == ["nb_301.zip", "t.parquet"]


@pytest.mark.parametrize(
    "change",
    [{"info": []}, {"optimized_hyperparamater_config": {}}, {"test_accuracy": None}],
    ids=["no result", "no network", "nothing measured"],
)
def test_other_files_are_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    source = folder_of(tmp_path / "nb_301", training(GENOTYPES[0], 90.0, **change))
    with pytest.raises(TableError, match=r"results_0\.json"):
        convert("nasbench301", source, tmp_path / "t.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TableError, match="such as results_0"):
        convert("nasbench301", tmp_path / "empty", tmp_path / "t.parquet")
    (tmp_path / "broken.zip").write_bytes(b"no archive")
    with pytest.raises(TableError, match=r"nb_301_\*\.zip"):
        convert("nasbench301", tmp_path / "broken.zip", tmp_path / "t.parquet")

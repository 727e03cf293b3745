"""The example notebooks run from their first cell to their last, in an empty folder."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.contract
@pytest.mark.parametrize("notebook", EXAMPLES, ids=lambda path: path.stem)
def test_notebook_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="pip install '.[dev]' brings nbformat")
    nbclient = pytest.importorskip("nbclient", reason="pip install '.[dev]' brings nbclient")
    monkeypatch.setenv("PATH", sysconfig.get_path("scripts"), prepend=os.pathsep)  # its shell commands are ours
    book = nbformat.read(notebook, as_version=4)
    client = nbclient.NotebookClient(book, timeout=None, resources={"metadata": {"path": str(tmp_path)}})

    client.execute()

    assert book.cells[-1].outputs


def test_every_notebook_is_shown_with_its_results() -> None:
    nbformat = pytest.importorskip("nbformat", reason="pip install '.[dev]' brings nbformat")
    assert EXAMPLES
    for notebook in EXAMPLES:
        cells = nbformat.read(notebook, as_version=4).cells
        code = [cell for cell in cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in code), notebook.name
        assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs), notebook.name

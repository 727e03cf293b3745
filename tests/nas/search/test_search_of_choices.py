"""A search among choices without a cell, from its config to its report."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import nas


def test_a_table_of_choices_is_searched_to_its_end(tmp_path: Path) -> None:
    layers = ("identity", "mb3", "mb6")
    rows = []
    for ops in product(layers, repeat=4):
        worth = sum((k + 1) * len(op) for k, op in enumerate(ops))
        rows.append(f'"{", ".join(f"layer{k}={op}" for k, op in enumerate(ops))}",{worth}')
    (tmp_path / "mine.csv").write_text("\n".join(["choices,accuracy", *rows]))
    (tmp_path / "search.py").write_text(
        "space = dict(type='table')\n"
        f"evaluator = dict(type='tabular', path={str(tmp_path / 'mine.csv')!r}, accuracy='accuracy')\n"
        "strategy = dict(type='nasgem', initial=8)\n"
        "fidelity = dict(epochs=1)\n"
        "search = dict(evaluations=20, batch=4, ahead=0)\n"
        "workers = dict(count=0)\n"
        "confirm = dict(top=0)\n"
    )
    result = nas.search(str(tmp_path / "search.py"), str(tmp_path / "work"))
    assert len(result.evaluations) == 20
    assert dict(result.chosen.found.proposal.candidate.macro) == {f"layer{k}": "identity" for k in range(4)}
    assert (tmp_path / "work" / "report.html").is_file()
    assert not (tmp_path / "work" / "cell.png").exists()

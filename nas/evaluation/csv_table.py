"""Evaluations as a CSV table: what a search leaves for people, and for the searches of others to begin with."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from gemnet.errors import GemnetError
from gemnet.strict_json import parse_json
from nas.evaluation.costs import LATENCY
from nas.evaluation.records import Evaluation, Fidelity, Proposal
from nas.spaces.base import Candidate

COLUMNS = (
    "number",
    "training_seed",
    "epochs",
    "resolution",
    "subset",
    "status",
    "dev_accuracy",
    "macs",
    "params",
    "seconds",
    "evaluator",
    "candidate",
)
FURTHER = ("latency_ms", "metrics")
"""Columns that tables of older versions do not have."""


class TableError(GemnetError):
    """A file that is no table of evaluations; the message names the line."""


def write_evaluations(
    file: Path,
    evaluations: Iterable[tuple[Evaluation, str]],
    estimated: Callable[[Evaluation], float | None] = lambda evaluation: None,
) -> int:
    """Writes evaluations, each with the fingerprint of what made it, and returns how many there were.

    Args:
        file: where to; its folder is made.
        evaluations: in the order of the rows.
        estimated: milliseconds of an image in a candidate whose evaluator did not measure them. They are for people:
            they are of one device, and not read again.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = 0
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow((*COLUMNS, *FURTHER))
        for each, evaluator in evaluations:
            proposal, fidelity = each.proposal, each.proposal.fidelity
            milliseconds = each.metrics.get(LATENCY, estimated(each))
            rows += 1
            writer.writerow(
                [
                    proposal.number,
                    proposal.training_seed,
                    fidelity.epochs,
                    fidelity.resolution or "",
                    fidelity.subset,
                    each.status,
                    "" if each.accuracy is None else each.accuracy,
                    _exact(each.macs),
                    _exact(each.params),
                    f"{each.seconds:.1f}",
                    evaluator,
                    json.dumps(proposal.candidate.to_json(), separators=(",", ":")),
                    "" if milliseconds is None else f"{milliseconds:.4g}",
                    json.dumps(dict(each.metrics), separators=(",", ":")) if each.metrics else "",
                ]
            )
    return rows


def _exact(cost: float | None) -> str:
    """A cost as it is read again, whole ones without a point."""
    return "" if cost is None else f"{cost:.0f}" if float(cost).is_integer() else repr(float(cost))


def read_evaluations(file: Path) -> list[tuple[Evaluation, str]]:
    """Reads what `write_evaluations` wrote.

    Raises:
        TableError: the file can't be read, has other columns, or holds a malformed row.
    """
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            reader = csv.DictReader(opened)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise TableError(
                    f"{file} is no table of evaluations: it has no column {missing[0]!r}. Such a table is written by "
                    "tools/export.py WORK_FOLDER --ledger FILE."
                )
            found = []
            for row in reader:
                try:
                    found.append(_evaluation(row))
                except (KeyError, TypeError, ValueError, GemnetError) as error:
                    raise TableError(f"{file}, line {reader.line_num}: {error}. Mend or delete the line.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{file} can't be read ({error}). Give a table of evaluations (.csv).") from None
    return found


def _evaluation(row: dict[str, str]) -> tuple[Evaluation, str]:
    if row["status"] not in ("ok", "failed"):
        raise ValueError(f"status is 'ok' or 'failed', got {row['status']!r}")

    def number(name: str) -> float | None:
        return float(row[name]) if row[name] else None

    proposal = Proposal(
        number=int(row["number"]),
        candidate=Candidate.from_json(parse_json(row["candidate"])),
        fidelity=Fidelity(
            int(row["epochs"]), int(row["resolution"]) if row["resolution"] else None, float(row["subset"])
        ),
        training_seed=int(row["training_seed"]),
    )
    evaluation = Evaluation(
        proposal,
        "ok" if row["status"] == "ok" else "failed",
        number("dev_accuracy"),
        number("macs"),
        number("params"),
        float(row["seconds"]),
        metrics=parse_json(row.get("metrics") or "{}"),
        reason="" if row["status"] == "ok" else "It had failed in the search that its table is of.",
    )
    return evaluation, row["evaluator"]

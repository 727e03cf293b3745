"""What a search begins with instead of random candidates: known ones, or the evaluations of an earlier search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gemnet.errors import GemnetError
from nas.evaluation.csv_table import read_evaluations
from nas.evaluation.ledger import LEDGER, records_of
from nas.evaluation.records import Evaluation
from nas.search.config import SearchConfig
from nas.spaces.base import Candidate, SearchSpace
from nas.spaces.limits import admits, describe, figures

MOST_FORMS = 10_000


class BeginningError(GemnetError):
    """Candidates or evaluations that a search can't begin with."""


def _belongs(candidate: Candidate, space: SearchSpace) -> bool:
    try:
        space.check(candidate)
    except GemnetError:
        return False
    return True


def first_candidates(config: SearchConfig, space: SearchSpace) -> list[Candidate]:
    """The known candidates of ``search.first``, without those that the limits admit with no value of an open choice.

    Raises:
        BeginningError: one that can't be read, breaks a rule of the space, exceeds a limit with all choices made, or is
            there twice; the message names its place.
    """
    found: dict[Hashable, Candidate] = {}
    for place, data in enumerate(config.search.first):
        where = f"search.first[{place}]"
        try:
            forms = _forms(Candidate.from_json(data), space)
            space.check(forms[0])
        except KeyError as error:
            raise BeginningError(
                f"{where} has no {error}. A candidate is dict(cell=dict(ops=[...], edges=[...]), macro=dict(...))."
            ) from None
        except (GemnetError, TypeError, ValueError, AttributeError) as error:
            raise BeginningError(f"{where}: {error}") from None
        batch = space.pack(forms)
        inside = admits(space, config.limits, batch)
        if not inside.any():
            if len(forms) > 1:
                continue
            shown = describe(figures(space, config.limits, batch))
            raise BeginningError(
                f"{where} has {shown}: more than limits admits. Make it smaller, or leave a choice out of macro: it "
                "then takes the value that the limits admit."
            )
        costs = space.macs(batch)
        largest = np.where(inside, np.arange(len(forms)) if costs is None else costs, -np.inf).argmax()
        candidate = space.unpack(batch, int(largest))  # its choices in the order of the space
        if candidate.key() in found:
            raise BeginningError(f"{where} is a network that search.first already has. Remove it.")
        found[candidate.key()] = candidate
    if config.search.first and not found:
        raise BeginningError(
            f"None of the {len(config.search.first)} candidates of search.first is within the limits, however small. "
            "Raise the limits, or leave search.first out to begin with random candidates."
        )
    return list(found.values())


def _forms(candidate: Candidate, space: SearchSpace) -> list[Candidate]:
    """A candidate with every combination of values for the choices of the space that it leaves open."""
    made = dict(candidate.macro)
    left_open = {name: values for name, values in space.macro_choices.items() if name not in made}
    count = math.prod(len(values) for values in left_open.values())
    if count > MOST_FORMS:
        raise BeginningError(
            f"it leaves {', '.join(left_open)} open: {count:,} combinations, where at most {MOST_FORMS:,} are tried. "
            "Name some of them in macro."
        )
    return [
        replace(candidate, macro=(*candidate.macro, *zip(left_open, values, strict=True)))
        for values in itertools.product(*left_open.values())
    ]


def earlier_evaluations(source: str) -> list[tuple[Evaluation, str]]:
    """Every evaluation of an earlier search, each with its evaluator's fingerprint.

    Args:
        source: path of the search's work folder, or of a table that was made of it (.csv).

    Raises:
        BeginningError: there is no ledger in the folder.
        TableError: the table can't be read.
    """
    path = Path(source)
    if path.suffix == ".csv":
        return read_evaluations(path)
    try:
        return records_of(path)
    except FileNotFoundError:
        raise BeginningError(
            f"search.start_from is '{path}', but there is no {LEDGER} in it. Give the work folder of an earlier "
            "search, or a table that tools/export.py --ledger made of it (.csv)."
        ) from None


def fitting(
    records: Sequence[tuple[Evaluation, str]], config: SearchConfig, space: SearchSpace, evaluator: str
) -> list[Evaluation]:
    """The earlier evaluations that this search could have made itself, each candidate once: a whole number of batches.

    Args:
        records: evaluations with their evaluators' fingerprints.
        config: this search.
        space: where it searches.
        evaluator: fingerprint of its own evaluator.

    Raises:
        BeginningError: there are too few.
    """
    earlier = [
        each
        for each, made_by in records
        if made_by == evaluator
        and each.proposal.fidelity == config.fidelity
        and not each.proposal.training_seed
        and _belongs(each.proposal.candidate, space)
    ]
    batch = space.pack([each.proposal.candidate for each in earlier])
    inside = admits(space, config.limits, batch)
    first = {each.proposal.candidate.key(): each for each, fits in zip(earlier, inside, strict=True) if fits}
    # A whole number of batches, since a broken one would mean that the space has no more.
    taken = list(first.values())[: len(first) // config.search.batch * config.search.batch]
    if not taken:
        raise BeginningError(
            f"None of the {len(records)} evaluations in {config.search.start_from} can be taken over by a search with "
            f"batches of {config.search.batch}: the space, data, recipe, fidelity and limits must be those of this "
            "one. Leave search.start_from out to begin with random candidates."
        )
    return taken

"""A mirror of the ledger as an Optuna study, for ``optuna-dashboard``."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nas.evaluation.records import Evaluation
from nas.evaluation.score import compared_by
from nas.evaluation.storage import address_of
from nas.search.callbacks.base import Begun, Callback, needed
from nas.search.report.pictures import draw_cell
from nas.search.report.result import SearchResult, figures_of

ARTIFACTS = "optuna_artifacts"
"""Folder in the work folder that holds the cells' pictures."""
MOST = 1_000_000
"""Upper end of whole-number parameters: Optuna wants one, the space may not say."""


class OptunaMirror(Callback):
    """Writes each evaluation as a trial; the ledger stays the truth, and nothing is read back but what is there.

    Objectives are the accuracy and, where it is known, the cost that the score charges. Parameters are the macro
    choices and how often each operation occurs. Hard limits are constraints, what came of an evaluation is its note,
    and each cell that is the best so far is kept as a picture.

    Args:
        storage: URL of a database, which may be the ledger's server (a database of its own), or a path.

    Raises:
        CallbackError: Optuna or its dashboard is not installed (extra ``dashboard``).
        LedgerError: a URL that can't be read.
    """

    def __init__(self, storage: str) -> None:
        self._optuna, self._dashboard = needed("optuna", "dashboard"), needed("optuna_dashboard", "dashboard")
        self._url = address_of(storage).render_as_string(hide_password=False)
        self._study: Any = None

    def begin(self, search: Begun) -> None:
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=self._optuna.exceptions.ExperimentalWarning)
        self._search = search
        self._cost = compared_by(search.score, search.limits)
        self._storage = self._optuna.storages.RDBStorage(self._url)
        self._artifacts = search.folder / ARTIFACTS
        self._artifacts.mkdir(exist_ok=True)
        self._store = self._optuna.artifacts.FileSystemArtifactStore(str(self._artifacts))
        self._waiting: list[tuple[Evaluation, float, float]] = []
        self._told: set[int] = set()
        self._shown: float | None = None
        self._name = f"{search.name} {search.id[:8]}"
        if self._name in self._optuna.get_all_study_names(self._storage):
            self._study = self._optuna.load_study(
                study_name=self._name, storage=self._storage, sampler=self._optuna.samplers.RandomSampler()
            )
            for trial in self._study.get_trials(deepcopy=False):
                if trial.state.is_finished():
                    self._told.add(trial.user_attrs.get("number", -1))
                    continue
                # It was being written when the process was killed. One that waits is taken by asking.
                states = self._optuna.trial.TrialState
                place = self._study.ask().number if trial.state is states.WAITING else trial.number
                self._study.tell(place, state=states.FAIL)

    def evaluated(self, evaluation: Evaluation, score: float, best: float) -> None:
        if self._study is None:
            self._waiting.append((evaluation, score, best))
            if evaluation.accuracy is not None:  # only now it is known whether it comes with a cost
                self._create(1 if evaluation.cost(self._cost) is None else 2)
            return
        self._add(evaluation, score, best)

    def end(self, result: SearchResult | None) -> None:
        if self._study is None and self._waiting:
            self._create(1)
        if self._study is not None and result is not None:
            chosen = result.chosen.found
            self._dashboard.save_note(
                self._study, f"Chosen: no. {chosen.proposal.number}, {figures_of(chosen)}. {self._search.folder}"
            )

    def _create(self, objectives: int) -> None:
        self._study = self._optuna.create_study(
            storage=self._storage,
            study_name=self._name,
            directions=["maximize", "minimize"][:objectives],
            sampler=self._optuna.samplers.RandomSampler(),  # it is not asked
        )
        self._study.set_metric_names(["accuracy", self._cost][:objectives])
        self._study.set_user_attr("work folder", str(self._search.folder.absolute()))
        for each in self._waiting:
            self._add(*each)
        self._waiting.clear()

    def _add(self, evaluation: Evaluation, score: float, best: float) -> None:
        optuna, proposal = self._optuna, evaluation.proposal
        is_best = evaluation.accuracy is not None and score >= best and score != self._shown
        self._shown = best
        if proposal.number in self._told:
            return
        distributions, values = self._parameters(evaluation)
        self._study.enqueue_trial(values, user_attrs={"number": proposal.number})
        trial = self._study.ask(distributions)
        trial.set_user_attr("score", score if evaluation.accuracy is not None else None)
        trial.set_user_attr("seconds", evaluation.seconds)
        for name, value in evaluation.metrics.items():
            trial.set_user_attr(name, value)
        for name, most in (("macs", self._limits.max_macs), ("params", self._limits.max_params)):
            cost = evaluation.cost(name)
            if most is not None and cost is not None:
                trial.set_constraint(name, cost - most)
        cell = json.dumps(proposal.candidate.to_json(), indent=1)
        self._dashboard.save_note(trial, f"No. {proposal.number}: {figures_of(evaluation)}\n\n```json\n{cell}\n```")
        if is_best:
            self._draw(evaluation, trial)
        costs = [] if len(self._study.directions) == 1 else [evaluation.cost(self._cost)]
        if evaluation.accuracy is None or None in costs:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, [evaluation.accuracy, *costs])

    @property
    def _limits(self) -> Any:
        return self._search.limits

    def _parameters(self, evaluation: Evaluation) -> tuple[dict[str, Any], dict[str, Any]]:
        """Distributions and values of what a candidate is."""
        optuna, space, candidate = self._optuna, self._search.space, evaluation.proposal.candidate
        whole = optuna.distributions.IntDistribution(0, MOST)
        counts: Counter[str] = Counter(candidate.cell.ops)
        numbers = {"nodes": len(candidate.cell.ops), "edges": len(candidate.cell.edges)}
        numbers |= {f"count {op}": counts[op] for op in space.vocabulary}
        distributions = dict.fromkeys(numbers, whole)
        values: dict[str, Any] = dict(numbers)
        for name, choices in space.macro_choices.items():
            distributions[name] = optuna.distributions.CategoricalDistribution(choices)
            values[name] = dict(candidate.macro)[name]
        return distributions, values

    def _draw(self, evaluation: Evaluation, trial: Any) -> None:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "cell.png"
            title = f"no. {evaluation.proposal.number}"
            draw_cell(evaluation.proposal.candidate.cell, file, title, vocabulary=self._search.space.vocabulary)
            self._optuna.artifacts.upload_artifact(
                artifact_store=self._store, file_path=str(file), study_or_trial=trial
            )

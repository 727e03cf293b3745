"""Weights & Biases: one run a search."""

from __future__ import annotations

from nas.evaluation.records import Evaluation
from nas.search.callbacks.base import Begun, Callback, figures, needed
from nas.search.report.result import SearchResult

ID_LENGTH = 32


class WeightsAndBiases(Callback):
    """Writes a run of a project, named by the search, so that a resumed search goes on with it.

    Args:
        project: its name.
        mode: ``online``, ``offline`` (``wandb sync`` hands it in later); None for what ``WANDB_MODE`` says.

    Raises:
        CallbackError: wandb is not installed (extra ``wandb``).
    """

    def __init__(self, project: str = "gemnet", mode: str | None = None) -> None:
        self._wandb = needed("wandb", "wandb")
        self._project, self._mode = project, mode

    def begin(self, search: Begun) -> None:
        self._search = search
        self._run = self._wandb.init(
            project=self._project,
            mode=self._mode,
            id=search.id[:ID_LENGTH],
            name=search.name,
            resume="allow",
            dir=str(search.folder),
            config=dict(search.config),
            settings=self._wandb.Settings(silent=True, console="off"),
        )
        # Evaluations end in any order, and are told again when a search is resumed.
        self._told = int(self._run.summary.get("told", 0)) if self._run.resumed else 0
        self._heard = 0
        self._run.define_metric("*", step_metric="number")

    def evaluated(self, evaluation: Evaluation, score: float, best: float) -> None:
        self._heard += 1
        if self._heard > self._told:
            number = evaluation.proposal.number
            self._run.log({"number": number, "told": self._heard, **figures(evaluation, score, best)})

    def end(self, result: SearchResult | None) -> None:
        if result is not None:
            kept = self._wandb.Artifact(f"search-{self._search.id[:ID_LENGTH]}", type="search")
            for file in self._search.artefacts:
                kept.add_file(str(file))
            self._run.log_artifact(kept)
        self._run.finish(exit_code=int(result is None))

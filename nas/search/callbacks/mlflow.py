"""MLflow: one run a search, with the evaluations as metrics and the files of the finished search as artifacts."""

from __future__ import annotations

import json

from nas.evaluation.records import Evaluation
from nas.search.callbacks.base import Begun, Callback, figures, needed
from nas.search.report.result import SearchResult

TAG = "gemnet.search"
LONGEST_PARAM = 500


class MLflow(Callback):
    """Writes a run of an experiment; a resumed search goes on with its run.

    Args:
        tracking_uri: of the server or folder; None for ``MLFLOW_TRACKING_URI`` or what MLflow takes without.
        experiment: its name.

    Raises:
        CallbackError: MLflow is not installed (extra ``mlflow``).
    """

    def __init__(self, tracking_uri: str | None = None, experiment: str = "gemnet") -> None:
        self._client = needed("mlflow", "mlflow").MlflowClient(tracking_uri)
        self._experiment = experiment

    def begin(self, search: Begun) -> None:
        client, self._search = self._client, search
        known = client.get_experiment_by_name(self._experiment)
        experiment = client.create_experiment(self._experiment) if known is None else known.experiment_id
        runs = client.search_runs([experiment], f"tags.`{TAG}` = '{search.id}'", max_results=1)
        run = runs[0] if runs else client.create_run(experiment, run_name=search.name, tags={TAG: search.id})
        self._run = run.info.run_id
        client.update_run(self._run, status="RUNNING")
        self._told = {each.step for each in client.get_metric_history(self._run, "seconds")}
        if not runs:
            for name, value in search.config.items():
                client.log_param(self._run, name, json.dumps(value)[:LONGEST_PARAM])

    def evaluated(self, evaluation: Evaluation, score: float, best: float) -> None:
        number = evaluation.proposal.number
        if number in self._told:
            return
        for name, value in figures(evaluation, score, best).items():
            self._client.log_metric(self._run, name, value, step=number)

    def end(self, result: SearchResult | None) -> None:
        for file in self._search.artefacts if result is not None else ():
            self._client.log_artifact(self._run, str(file))
        self._client.set_terminated(self._run, "KILLED" if result is None else "FINISHED")

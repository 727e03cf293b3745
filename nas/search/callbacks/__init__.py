"""Callbacks: whoever else is to hear of a search while it runs, such as experiment trackers.

They hear of it in a thread of their own, so that a slow one keeps no worker waiting. What they are told follows from
the ledger, and a resumed search tells all of it again: each callback sees to it that nothing is shown twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType

from gemnet.strict import Component, check_options, find_class, keyword_names, typed
from nas.evaluation.records import Evaluation
from nas.executors.base import describe
from nas.executors.monitor import Monitor
from nas.search.callbacks.base import Begun, Callback, CallbackError
from nas.search.report.result import SearchResult

CALLBACKS = {
    "optuna": "nas.search.callbacks.optuna.OptunaMirror",
    "tensorboard": "nas.search.callbacks.tensorboard.TensorBoard",
    "mlflow": "nas.search.callbacks.mlflow.MLflow",
    "wandb": "nas.search.callbacks.wandb.WeightsAndBiases",
}
"""Those a config names; one's own is named by its dotted path."""

__all__ = ["CALLBACKS", "Begun", "Callback", "CallbackError", "Callbacks", "make_callbacks"]


def make_callbacks(components: Sequence[Component]) -> dict[str, Callback]:
    """The callbacks of a config, by what messages call them.

    Raises:
        ConfigError: a name or option that does not exist, or a value of a wrong type.
        CallbackError: what a callback needs is not installed.
    """
    made = {}
    for place, component in enumerate(components):
        where = f"callbacks[{place}]"
        kind = find_class(component.type, CALLBACKS, Callback, f"{where}.type")
        check_options(keyword_names(kind), component.options, where)
        made[f"{where} ({component.type})"] = kind(**typed(kind, component.options, where))
    return made


class Callbacks:
    """Tells callbacks of one search; one that fails is left out from then on, and that is noted.

    Args:
        callbacks: by what messages call them.
        monitor: hears of failures.
    """

    def __init__(self, callbacks: Mapping[str, Callback], monitor: Monitor) -> None:
        self._callbacks = dict(callbacks)
        self._monitor = monitor
        self._failures: list[str] = []
        self._best: float | None = None
        self._thread = ThreadPoolExecutor(1, "callbacks")

    def __enter__(self) -> Callbacks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:  # a resumed search tells what is dropped here
            self._thread.shutdown(cancel_futures=True)
            self._thread = ThreadPoolExecutor(1, "callbacks")
            self.end(None)
        self._thread.shutdown()
        self._say_what_failed()

    def begin(self, search: Begun) -> None:
        """A search begins, or goes on."""
        self._tell(lambda callback: callback.begin(search))

    def evaluated(self, evaluation: Evaluation, score: float) -> None:
        """An evaluation has ended, or was found in the ledger; ``score`` is minus infinity where it failed."""
        self._best = score if self._best is None else max(self._best, score)
        best = self._best
        self._tell(lambda callback: callback.evaluated(evaluation, score, best))

    def end(self, result: SearchResult | None) -> None:
        """The search has ended; ``result`` is None where it was stopped."""
        self._tell(lambda callback: callback.end(result))

    def _tell(self, what: Callable[[Callback], None]) -> None:
        self._say_what_failed()
        for name in list(self._callbacks):
            self._thread.submit(partial(self._tell_one, name, what))

    def _tell_one(self, name: str, what: Callable[[Callback], None]) -> None:
        callback = self._callbacks.get(name)
        if callback is None:
            return
        try:
            what(callback)
        except Exception as error:  # a tracker's server that is away must not end a search
            del self._callbacks[name]
            self._failures.append(f"{name} is left out from here on: {describe(error)}")

    def _say_what_failed(self) -> None:
        while self._failures:
            self._monitor.note(self._failures.pop(0))

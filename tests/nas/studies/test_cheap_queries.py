"""Short trainings as cheap queries: what is compared, and by which names the command knows it."""

from __future__ import annotations

import pytest

from nas.commands.benchmark import _parser
from nas.studies.tabular.cheap_queries import cheap_query_tasks
from nas.studies.tabular.runs import BenchmarkError

METRIC = "c10_valid_200ep_1seed"


def test_every_seed_runs_with_short_trainings_and_without() -> None:
    tasks = cheap_query_tasks("nasbench201", METRIC, epochs=12, cheap=100, seeds=2, queries=60)
    assert [(task.seed, task.cheap) for task in tasks] == [(0, 100), (0, 0), (1, 100), (1, 0)]


def test_epochs_without_results_are_refused_and_the_known_ones_named() -> None:
    with pytest.raises(BenchmarkError, match="13") as caught:
        cheap_query_tasks("nasbench201", METRIC, epochs=13, cheap=100, seeds=2, queries=60)
    assert f"{METRIC} after 12" in str(caught.value)


def test_the_old_name_of_the_command_is_understood() -> None:
    new, old = (_parser("b").parse_args([name, "--space", "nasbench201"]) for name in ("cheap-queries", "fidelity"))
    assert new == old

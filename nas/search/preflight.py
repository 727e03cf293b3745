"""What is done before a search spends time: names, options, limits, data and folder are checked, its parts built."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gemnet.data.datasets import DataSpec, missing_test_images
from gemnet.files import stored_json
from gemnet.genome import Genome
from gemnet.macs import cost
from gemnet.strict import make
from nas.evaluation.costs import LATENCY as LATENCY_COST
from nas.evaluation.latency import LatencyModel, LatencyOptions
from nas.evaluation.ledger import check_ledger
from nas.evaluation.networks import NetworkTrainer
from nas.evaluation.records import Evaluation, Evaluator
from nas.evaluation.score import compared_by
from nas.executors.monitor import Monitor
from nas.search.begin import earlier_evaluations, first_candidates, fitting
from nas.search.callbacks import Callback, make_callbacks
from nas.search.config import SearchConfig
from nas.search.folder import IDENTITY, LATENCY, check_work_folder
from nas.search.parts import (
    build_parts,
    build_strategy,
    check_config,
    check_space,
    check_strategy,
    fingerprint_of,
    prepare_latency,
)
from nas.spaces.base import Candidate, SearchSpace
from nas.spaces.gemnet import GEMNetSpace
from nas.strategies.base import Strategy


@dataclass(frozen=True)
class ReadySearch:
    """A search that can begin: everything it works with.

    Args:
        config: what was asked for.
        space: where it searches.
        evaluator: what measures candidates.
        fingerprint: `fingerprint_of` it: results with the same one may be compared.
        strategy: what proposes them; it has been told nothing yet.
        first: known candidates to begin with.
        earlier: evaluations of another search to begin with; None for none, or where this one was begun before.
        latency: estimates of latencies; None where nothing limits or charges them.
        measures_latency: whether this machine is the one that latencies are estimated for.
        missing_test: why there will be no figures on test images that the config asks for; "" where there will be.
        callbacks: whoever else is to hear of it, by what messages call them.
    """

    config: SearchConfig
    space: SearchSpace
    evaluator: Evaluator
    fingerprint: str
    strategy: Strategy
    first: Sequence[Candidate] = ()
    earlier: Sequence[Evaluation] | None = None
    latency: LatencyModel | None = None
    measures_latency: bool = False
    missing_test: str = ""
    callbacks: Mapping[str, Callback] = field(default_factory=dict)

    def score(self, evaluation: Evaluation) -> float:
        """Efficiency score; minus infinity for a failed evaluation."""
        score = self.config.score.of(evaluation)
        return float("-inf") if math.isnan(score) else score

    @property
    def compared_by(self) -> str:
        """The cost at which the found network is compared with others."""
        return compared_by(self.config.score, self.config.limits)

    def price(self, genome: Genome) -> float:
        """What networks are compared by, of one that need not be of the space.

        Args:
            genome: the network.
        """
        assert isinstance(self.space, GEMNetSpace)
        if self.compared_by == LATENCY_COST:
            assert self.latency is not None
            return self.latency.of(genome, self.space.in_chans)
        return float(getattr(cost(genome, in_chans=self.space.in_chans), self.compared_by))


def preflight(config: SearchConfig, path: Path, resume: bool, monitor: Monitor) -> ReadySearch:
    """Checks a config and builds what it says; cheap things first, and nothing is written.

    Args:
        config: the search.
        path: its work folder, which need not be there.
        resume: whether the folder may hold this search.
        monitor: hears how measuring latencies goes, where they are limited or charged.

    Raises:
        GemnetError: a name, option, data set, limit or folder that can't be used.
    """
    check_config(config)
    callbacks = make_callbacks(config.callbacks)
    space, evaluator = build_parts(config)
    fingerprint = fingerprint_of(config, evaluator)
    if stored_json(path / IDENTITY).get("evaluator") == evaluator.fingerprint:
        fingerprint = evaluator.fingerprint  # begun before options were a part of it
    begun = check_work_folder(path, config, fingerprint, resume)
    if config.search.steps is not None and isinstance(evaluator, NetworkTrainer):
        config = replace(config, fidelity=evaluator.evaluator.with_steps(config.fidelity, config.search.steps))
    check_space(config, space, evaluator)
    strategy = build_strategy(config, space, evaluator)
    check_strategy(config, space, evaluator)
    if config.ledger is not None:
        check_ledger(config.ledger)  # a wrong URL is to be found out before the folder is made
    records = None if begun or config.search.start_from is None else earlier_evaluations(config.search.start_from)
    latency = prepare_latency(config, space, evaluator, path / LATENCY, monitor)
    wants_test = config.final is not None and config.comparison is not None and config.comparison.test
    return ReadySearch(
        config=config,
        space=space,
        evaluator=evaluator,
        fingerprint=fingerprint,
        strategy=strategy,
        first=first_candidates(config, space),
        earlier=None if records is None else fitting(records, config, space, fingerprint),
        latency=latency,
        measures_latency=latency is not None and latency.is_of(config.latency or LatencyOptions()),
        missing_test=missing_test_images(make(DataSpec, config.data, "data")) if wants_test else "",
        callbacks=callbacks,
    )

"""Search strategies, all behind the same ask and tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gemnet.errors import nearest
from gemnet.strict import find_class, keyword_names, typed
from nas.evaluation.records import Fidelity
from nas.evaluation.score import EfficiencyScore
from nas.spaces import is_own
from nas.spaces.base import SearchSpace
from nas.spaces.limits import Limits
from nas.strategies.base import Strategy
from nas.strategies.history import HistoryStrategy, StrategyError

# A module is imported when its strategy is made, so that random search needs no torch.
STRATEGIES = {
    "random": "nas.strategies.random.RandomSearch",
    "local_search": "nas.strategies.local_search.LocalSearch",
    "evolution": "nas.strategies.evolution.RegularizedEvolution",
    "bananas": "nas.strategies.bananas.Bananas",
    "wl_gp": "nas.strategies.wl_gp.WLGaussianProcess",
    "structural": "nas.strategies.structural.StructuralSearch",
    "nasgem": "nas.strategies.nasgem.Nasgem",
}

OF_LIBRARIES = {
    "tpe": "nas.strategies.tpe.OptunaTPE",
    "botorch": "nas.strategies.botorch.BoTorchMixed",
    "smac": "nas.strategies.smac.SMAC",
}
"""What other libraries search with (extra ``rivals``), in spaces that can be written as choices."""

GIVEN = ("space", "seed", "fidelity", "score", "limits", "measure")
"""Arguments of strategies that come from the other parts of a search and are no options of a config."""

__all__ = [
    "OF_LIBRARIES",
    "STRATEGIES",
    "HistoryStrategy",
    "Strategy",
    "StrategyError",
    "make_strategy",
    "strategy_options",
    "typed_options",
]


def strategy_options(name: str) -> list[str]:
    """Names of the options that `make_strategy` takes for a strategy.

    Raises:
        StrategyError: unknown strategy.
    """
    return [option for option in keyword_names(_class(name)) if option not in GIVEN]


def make_strategy(
    name: str,
    space: SearchSpace,
    seed: int,
    *,
    fidelity: Fidelity,
    score: EfficiencyScore | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> HistoryStrategy:
    """Builds a strategy by name.

    Args:
        name: one of `STRATEGIES` or `OF_LIBRARIES`, or the dotted path of one's own subclass of `HistoryStrategy`.
        space: where to search.
        seed: with the number of a proposal, the key of all randomness.
        fidelity: how thoroughly proposals are to be evaluated.
        score: what is maximised; None is the accuracy.
        limits: hard limits.
        options: the strategy's own, see `strategy_options`; and ``measure``, see `nas.strategies.nasgem.Nasgem`.

    Raises:
        StrategyError: unknown strategy or option, or a number out of range.
        ConfigError: a value of a wrong type.
        LimitsError: limits no candidate meets.
    """
    own = {option: value for option, value in options.items() if option not in GIVEN}
    options |= typed_options(name, own)
    return _class(name)(space, seed, fidelity=fidelity, score=score, limits=limits, **options)


def typed_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A strategy's options with values as it wants them.

    Raises:
        StrategyError: an unknown strategy, or an option that it doesn't have.
        ConfigError: a value of a wrong type.
    """
    known = strategy_options(name)
    for option in options:
        if option not in known:
            raise StrategyError(f"Strategy {name!r} has no option {option!r}.{nearest(option, known)}")
    return typed(_class(name), options, name)


def _class(name: str) -> type[HistoryStrategy]:
    """One of ours, or one's own by its dotted path: it takes what `HistoryStrategy` takes."""
    known = STRATEGIES | OF_LIBRARIES
    if name not in known and not is_own(name):
        raise StrategyError(f"Unknown strategy {name!r}.{nearest(name, known)}")
    return find_class(name, known, HistoryStrategy, "strategy.type")

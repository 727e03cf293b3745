"""The search: spaces, WL-guided embedding, predictor, strategies, evaluators and the loop that joins them.

    import nas

    result = nas.search("default")

What one builds a search from is here by its short name: ``from nas import SearchSpace, HistoryStrategy, Evaluation``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas import search, wl
    from nas.commands.console import ConsoleMonitor
    from nas.evaluation.ledger import Ledger
    from nas.evaluation.records import Evaluation, Evaluator, Fidelity, Proposal
    from nas.evaluation.score import EfficiencyScore
    from nas.executors import Executor
    from nas.executors.monitor import Monitor
    from nas.search.config import SearchConfig
    from nas.search.report.result import SearchResult
    from nas.spaces.base import Candidate, CandidateBatch, SearchSpace, SpaceError
    from nas.spaces.base import SearchSpace as Space
    from nas.spaces.limits import Limits
    from nas.strategies.base import Strategy
    from nas.strategies.history import HistoryStrategy
    from nas.tables.table import Table

_HOMES = {
    "Candidate": "nas.spaces.base",
    "CandidateBatch": "nas.spaces.base",
    "ConsoleMonitor": "nas.commands.console",
    "EfficiencyScore": "nas.evaluation.score",
    "Evaluation": "nas.evaluation.records",
    "Evaluator": "nas.evaluation.records",
    "Executor": "nas.executors.base",
    "Fidelity": "nas.evaluation.records",
    "HistoryStrategy": "nas.strategies.history",
    "Ledger": "nas.evaluation.ledger",
    "Limits": "nas.spaces.limits",
    "Monitor": "nas.executors.monitor",
    "Proposal": "nas.evaluation.records",
    "SearchConfig": "nas.search.config",
    "SearchResult": "nas.search.report.result",
    "SearchSpace": "nas.spaces.base",
    "Space": "nas.spaces.base",
    "SpaceError": "nas.spaces.base",
    "Strategy": "nas.strategies.base",
    "Table": "nas.tables.table",
}
"""Where each lives. They are imported when they are asked for: a command's ``--help`` should not wait for them."""

__all__ = [
    "Candidate",
    "CandidateBatch",
    "ConsoleMonitor",
    "EfficiencyScore",
    "Evaluation",
    "Evaluator",
    "Executor",
    "Fidelity",
    "HistoryStrategy",
    "Ledger",
    "Limits",
    "Monitor",
    "Proposal",
    "SearchConfig",
    "SearchResult",
    "SearchSpace",
    "Space",
    "SpaceError",
    "Strategy",
    "Table",
    "search",
    "wl",
]


def __getattr__(name: str) -> Any:
    if name in ("search", "wl"):
        return import_module(f"nas.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), "SearchSpace" if name == "Space" else name)

"""What every search space offers: candidates one by one and thousands at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemnet.cell_graph import CellGraph, GraphBatch
from gemnet.errors import GemnetError, nearest
from nas.graphs.effective import without_dead_weight

Choice = str | int | float | bool | None


@dataclass(frozen=True)
class Candidate:
    """One point of a search space: a cell and named discrete choices around it.

    Args:
        cell: the DAG.
        macro: (name, value) pairs in the order of the space's ``macro_choices``; empty for tables.
    """

    cell: CellGraph
    macro: tuple[tuple[str, Choice], ...] = ()

    def key(self) -> tuple[str, tuple[tuple[str, Choice], ...]]:
        """Equal for candidates that build the same network: canonical hash of the cell, macro choices."""
        return self.cell.canonical_hash(), self.macro

    def to_json(self) -> dict[str, Any]:
        """``{"cell": {...}, "macro": {name: value}}``."""
        return {"cell": self.cell.to_json(), "macro": dict(self.macro)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Candidate:
        """Reads what `to_json` wrote."""
        return cls(CellGraph.from_json(data["cell"]), tuple(_chosen(*pair) for pair in data.get("macro", {}).items()))


@lru_cache(maxsize=4096, typed=True)
def _chosen(name: str, value: Choice) -> tuple[str, Choice]:
    """A choice's name and value, as one object for all candidates: a search may hold a hundred thousand of them."""
    return name, value


@dataclass(frozen=True, eq=False)
class CandidateBatch:
    """Many candidates as arrays.

    Args:
        graphs: the cells, n of them.
        macro: index into each macro choice's values; int16 (n, number of macro choices).
    """

    graphs: GraphBatch
    macro: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.graphs)

    def take(self, index: NDArray[Any] | Sequence[int] | slice) -> CandidateBatch:
        """The candidates at ``index`` (integers, a slice or a boolean mask)."""
        if not isinstance(index, slice):
            index = np.asarray(index)
            if index.size == 0:
                index = index.astype(np.intp)
        return CandidateBatch(self.graphs.take(index), self.macro[index])

    @staticmethod
    def concat(batches: Sequence[CandidateBatch]) -> CandidateBatch:
        """The candidates of all batches, in order."""
        return CandidateBatch(
            GraphBatch.concat([batch.graphs for batch in batches]), np.concatenate([batch.macro for batch in batches])
        )


class SearchSpace(ABC):
    """A set of candidates, with what a search needs to move in it.

    Attributes:
        name: the name configs use.
        vocabulary: operation names a cell's inner nodes may carry.
        macro_choices: name -> the values it may take; empty where only the cell is searched.
        ordinal_choices: those of them that are in order although their values are no numbers.
        zero_ops: operations that let nothing through (`none`).
        identity_ops: operations that change nothing (`skip_connect`).
        is_closer_alone: whether `latency` estimates a few candidates more closely than thousands.
    """

    name: str
    vocabulary: tuple[str, ...]
    macro_choices: Mapping[str, tuple[Choice, ...]] = MappingProxyType({})
    ordinal_choices: frozenset[str] = frozenset()
    zero_ops: frozenset[str] = frozenset()
    identity_ops: frozenset[str] = frozenset()
    is_closer_alone: bool = False

    @abstractmethod
    def sample(self, n: int, rng: np.random.Generator) -> CandidateBatch:
        """``n`` valid candidates drawn independently (repeats are possible)."""

    @abstractmethod
    def mutate(self, parents: CandidateBatch, rng: np.random.Generator, edits: int = 1) -> CandidateBatch:
        """One valid child for each parent, ``edits`` small changes away."""

    @abstractmethod
    def neighbours(self, candidate: Candidate) -> CandidateBatch:
        """All (or, in a large space, a fixed deterministic set of) candidates one edit away."""

    @abstractmethod
    def check(self, candidate: Candidate) -> None:
        """Raises `SpaceError`, naming what breaks which rule, where the candidate is not of this space."""

    def all(self) -> CandidateBatch | None:
        """Every candidate, where the space can be listed; else None."""
        return None

    def macs(self, batch: CandidateBatch) -> NDArray[np.float64] | None:
        """MACs of each candidate's network at the space's input size, (n,); None where the space has no such notion."""
        return None

    def params(self, batch: CandidateBatch) -> NDArray[np.float64] | None:
        """Parameters of each candidate's network, (n,); None where the space has no such notion."""
        return None

    def live_costs(self, batch: CandidateBatch) -> list[NDArray[np.float64]]:
        """MACs and parameters, each (n,), of what the cells compute: what zero operations cut off costs nothing here.

        It is what predictors go by; empty where the space knows neither.
        """
        live = CandidateBatch(without_dead_weight(batch.graphs, self.zero_ops), batch.macro)
        return [values for values in (self.macs(live), self.params(live)) if values is not None]

    def latency(self, batch: CandidateBatch) -> NDArray[np.float64] | None:
        """Milliseconds an image takes in each candidate's network, (n,); None where nothing was measured."""
        return None

    def cost(self, name: str, batch: CandidateBatch) -> NDArray[np.float64] | None:
        """``macs``, ``params`` or ``latency`` of each candidate's network, (n,); None where it is not known."""
        return {"macs": self.macs, "params": self.params, "latency": self.latency}[name](batch)

    def is_ordinal(self, choice: str) -> bool:
        """Whether the values of a macro choice are in order: numbers are, and what `ordinal_choices` names."""
        numbers = all(isinstance(value, int | float) for value in self.macro_choices[choice])
        return numbers or choice in self.ordinal_choices

    def pack(self, candidates: Sequence[Candidate]) -> CandidateBatch:
        """Candidates as one batch.

        Raises:
            SpaceError: a macro choice or value this space doesn't have.
            GraphError: an operation outside the vocabulary.
        """
        graphs = GraphBatch.from_graphs([candidate.cell for candidate in candidates], self.vocabulary)
        macro = np.zeros((len(candidates), len(self.macro_choices)), dtype=np.int16)
        for row, candidate in enumerate(candidates):
            given = dict(candidate.macro)
            for name in given:
                if name not in self.macro_choices:
                    raise SpaceError(
                        f"Unknown macro choice {name!r} in space {self.name!r}.{nearest(name, self.macro_choices)}"
                    )
            for column, (name, values) in enumerate(self.macro_choices.items()):
                if name not in given:
                    raise SpaceError(f"Macro choice {name!r} is missing; space {self.name!r} takes one of {values}.")
                if given[name] not in values:
                    raise SpaceError(
                        f"Macro choice {name!r} is one of {values} in space {self.name!r}, got {given[name]!r}."
                    )
                macro[row, column] = values.index(given[name])
        return CandidateBatch(graphs, macro)

    def unpack(self, batch: CandidateBatch, index: int) -> Candidate:
        """Candidate ``index`` of a batch."""
        row = batch.macro[index].tolist()
        macro = tuple(
            _chosen(name, values[k]) for (name, values), k in zip(self.macro_choices.items(), row, strict=True)
        )
        return Candidate(batch.graphs.graph(index), macro)


class SpaceError(GemnetError):
    """A candidate that breaks a rule of its search space."""

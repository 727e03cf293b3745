"""BANANAS: an ensemble of networks on the path encoding, and independent Thompson sampling.

White, Neiswanger and Savani, "BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture Search",
AAAI 2021. The path encoding has a bit for each sequence of operations, set where a path from input to output
carries it; long sequences are rare in random cells and are cut off (their truncated encoding).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nas.predictors.ensemble import Ensemble, path_encoding
from nas.spaces.base import Candidate, CandidateBatch, SearchSpace
from nas.strategies.acquisition import independent_thompson
from nas.strategies.history import HistoryStrategy, check_least


class Bananas(HistoryStrategy):
    """Trains an ensemble every ``n`` proposals and asks it about mutations of the best.

    Args:
        space, seed, options: see `HistoryStrategy`.
        members: networks of the ensemble.
        mutations: candidates of a round, children of the best.
        parents: how many of the best have children.
        epochs: training of each network, full batch.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int,
        *,
        members: int = 5,
        mutations: int = 200,
        parents: int = 10,
        epochs: int = 200,
        **options: Any,
    ) -> None:
        super().__init__(space, seed, **options)
        self.members = members
        self.mutations = mutations
        self.parents = parents
        self.epochs = epochs
        check_least(self, members=1, mutations=1, parents=1, epochs=1)

    def propose(
        self, n: int, rng: np.random.Generator, taken: set[Hashable], pending: Sequence[Candidate]
    ) -> list[Candidate]:
        scores = self.scores()
        children = self._children(np.argsort(-scores, kind="stable")[: self.parents], taken, rng)
        if not children:
            return []
        # Encoded together, since the length of the longest path kept depends on the widest cell.
        encoded = self._encode(self.space.pack([*self.candidates, *children]))
        mean, deviation = self._predict(encoded[: len(scores)], scores, encoded[len(scores) :], rng)
        values = independent_thompson(mean, deviation, rng)
        return [children[row] for row in np.argsort(-values, kind="stable")[:n]]

    def _children(self, best: NDArray[np.intp], taken: set[Hashable], rng: np.random.Generator) -> list[Candidate]:
        parents = self.space.pack([self.candidates[row] for row in best])
        known, found = set(taken), []
        for edits in (1, 1, 2, 3):
            share = np.arange(self.mutations) % len(parents)
            batch = self.admitted(self.space.mutate(parents.take(share), rng, edits=edits))
            for row in range(len(batch)):
                child = self.space.unpack(batch, row)
                if self.is_new(child, known):
                    known.add(self.key(child))
                    found.append(child)
            if len(found) >= self.mutations // 2:
                break
        return found

    def _encode(self, batch: CandidateBatch) -> NDArray[np.float32]:
        sizes = [len(values) for values in self.space.macro_choices.values()]
        macro = [np.eye(size, dtype=np.float32)[batch.macro[:, k]] for k, size in enumerate(sizes)]
        return np.concatenate([path_encoding(batch.graphs), *macro], axis=1)

    def _predict(
        self,
        known: NDArray[np.float32],
        scores: NDArray[np.float64],
        asked: NDArray[np.float32],
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        used = np.flatnonzero(known.any(axis=0) | asked.any(axis=0))
        inputs, questions = torch.from_numpy(known[:, used]), torch.from_numpy(asked[:, used])
        centre, spread = float(scores.mean()), float(scores.std()) or 1.0
        targets = torch.from_numpy(((scores - centre) / spread).astype(np.float32))
        ensemble = Ensemble(self.members, len(used), generator)
        optimiser = torch.optim.Adam(ensemble.parameters(), lr=0.01, betas=(0.9, 0.99), foreach=True)
        for _ in range(self.epochs):
            optimiser.zero_grad()
            # The paper's loss divides by the target's distance from the optimum (MAPE); with standardised targets the
            # absolute error is what is left of it.
            loss = (ensemble(inputs) - targets).abs().mean(dim=1).sum()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            predictions = ensemble(questions).double().numpy() * spread + centre
        return predictions.mean(axis=0), predictions.std(axis=0)

"""What NASGEM's predictor sees of candidates."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np

from gemnet.cell_graph import FIRST_OP_CODE
from nas.encoder import Encoder, EncoderConfig, load_or_train
from nas.encoder.model import UntrainedNetworks
from nas.encoder.training import Progress
from nas.predictors.features import FeatureTable, embedding_table, macro_table, structural_table, untrained_table
from nas.predictors.pool import Pool
from nas.spaces.base import CandidateBatch, SearchSpace
from nas.tables.space import TableSpace


@dataclass(frozen=True)
class Parts:
    """What the predictor sees of a candidate, beside macro choices and costs.

    Args:
        encoder: how the encoder of the embedding is trained; None leaves the embedding out.
        structure: structural features of the effective graph.
        drawn: operation counts of the graph as it is drawn.
        untrained: how many untrained networks look at the cell, too, beside an encoder.
    """

    encoder: EncoderConfig | None = EncoderConfig()  # noqa: RUF009  frozen
    structure: bool = True
    drawn: bool = True
    untrained: int = 0


def features(pool: Pool, parts: Parts) -> FeatureTable:
    """What the predictor sees of a pool's candidates, n rows. Where a space has no cells, choices and costs are all."""
    space = pool.space
    tables = [pool.table("macro", lambda batch: macro_table(space, batch))]
    if parts.structure:
        tables.append(pool.table("structure", lambda batch: structural_table(space, batch)))
    if parts.encoder is not None and space.vocabulary:
        encoder = encoder_of(space, parts.encoder)
        name = f"embedding {json.dumps(asdict(parts.encoder))} and {parts.untrained}"
        tables.append(pool.table(name, lambda batch: embedded(encoder, parts.untrained, batch), mixed=True))
    if parts.drawn:
        tables.append(pool.table("drawn", drawn_table))
    return FeatureTable.join(tables)


def embedded(encoder: Encoder, untrained: int, batch: CandidateBatch) -> FeatureTable:
    """A trained encoder's vectors, and what untrained networks make of the same cells."""
    if not untrained:
        return embedding_table(encoder.embed(batch.graphs))
    vectors, arbitrary = encoder.embed_beside(_untrained(len(encoder.vocabulary), untrained), batch.graphs)
    return FeatureTable.join([embedding_table(vectors), untrained_table(arbitrary, untrained)])


_untrained = lru_cache(maxsize=64)(UntrainedNetworks)


@lru_cache(maxsize=64)
def encoder_of(space: SearchSpace, config: EncoderConfig) -> Encoder:
    """The encoder of a space, trained once; a table's cells are embedded by the encoder of the space they come from."""
    return load_or_train(embedded_space(space), config)


def prepare_encoder(space: SearchSpace, config: EncoderConfig, progress: Progress | None = None) -> None:
    """Trains the encoder of a space, or reads it from the cache, so that no later use of it takes minutes.

    Args:
        space, config: as of `encoder_of`.
        progress: called after each training step with (step, steps, loss); never where the cache has the encoder.
    """
    if not space.vocabulary:
        return
    if progress is not None:
        load_or_train(embedded_space(space), config, progress=progress)
    encoder_of(space, config)


def embedded_space(space: SearchSpace) -> SearchSpace:
    """The space whose encoder serves: that of a table's cells where it is known, else the space itself."""
    base = space.base if isinstance(space, TableSpace) else None
    return space if base is None else base


def drawn_table(batch: CandidateBatch) -> FeatureTable:
    """Nodes of each operation in the graph as it is drawn, (n, operations).

    Structural features are those of the effective graph, equal for cells that compute the same. Trained and measured,
    such cells still differ, and what a cell carries without effect says a little about how.
    """
    codes = batch.graphs.ops[:, :, None] == FIRST_OP_CODE + np.arange(len(batch.graphs.vocabulary))
    return FeatureTable(codes.sum(axis=1).astype(np.float32), ("drawn",) * codes.shape[2])


def reached_table(zero_ops: Collection[str], batch: CandidateBatch) -> FeatureTable:
    """Nodes of each operation whose results reach the output, whether or not the input reaches them, (n, operations).

    A latency is measured on what runs: a convolution of nothing but zeros costs as much as any other, where its result
    is read.
    """
    graphs = batch.graphs
    zero = np.isin(graphs.ops, [FIRST_OP_CODE + k for k, op in enumerate(graphs.vocabulary) if op in zero_ops])
    reached = np.zeros(graphs.ops.shape, dtype=np.bool_)
    reached[np.arange(len(graphs)), graphs.sizes - 1] = True
    through = np.zeros(len(graphs), dtype=np.uint32)
    for node in range(graphs.width - 1, -1, -1):
        reached[:, node] |= (graphs.successors[:, node] & through) != 0
        through |= np.where(reached[:, node] & ~zero[:, node], np.uint32(1 << node), np.uint32(0))
    codes = graphs.ops[:, :, None] == FIRST_OP_CODE + np.arange(len(graphs.vocabulary))
    return FeatureTable(
        (codes & reached[:, :, None]).sum(axis=1).astype(np.float32), ("read",) * len(graphs.vocabulary)
    )

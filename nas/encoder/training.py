"""Training the encoder on graphs alone: similarity after a guide, reconstruction, structure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from gemnet.cell_graph import FIRST_OP_CODE, MAX_NODES, GraphBatch
from gemnet.errors import GemnetError
from gemnet.strict import at_least
from nas.encoder.guide import Guide, make_guide
from nas.encoder.inputs import NodeInputs, without_zero_ops
from nas.encoder.model import GraphNetwork, Heads, UntrainedNetworks, as_tensors
from nas.graphs.structure import structural_features
from nas.spaces.base import CandidateBatch, SearchSpace

Floats = NDArray[np.float32]
Progress = Callable[[int, int, float], None]

# Graphs are drawn for this many batches at once and then used for this many steps: drawing them costs more than a step.
_STOCK_BATCHES, _STOCK_STEPS = 40, 200
# A graph's companions in a batch: itself after so many edits (cumulative), so that the guide's fine shades are seen.
_EDITS = (1, 2, 4)
_GROUP = len(_EDITS) + 2  # the graph, its edits, and the graph with its operations shuffled: equal histogram
_EMBED_CHUNK = 256


class EncoderError(GemnetError):
    """A setting of the encoder that means nothing."""


@dataclass(frozen=True)
class EncoderConfig:
    """How an encoder is built and trained.

    Args:
        guide: similarity that cosines follow (`nas.encoder.guide.guide_names`); None trains without.
        iterations: depth h of the guide.
        guide_weight: weight of the similarity loss.
        reconstruction_weight: weight of reconstructing operations and edges; 0 leaves it out.
        structure_weight: weight of predicting structural features (path lengths and counts); 0 leaves it out.
        steps: training steps; 0 leaves the network as initialised.
        batch_size: graphs in a step.
        learning_rate: peak of the one-cycle schedule of AdamW.
        hidden: width of a node's state.
        rounds: rounds of messages.
        dimension: numbers in a graph's vector.
        seed: of initialisation and training graphs.
    """

    guide: str | None = "graded_wl"
    iterations: int = 2
    guide_weight: float = 1.0
    reconstruction_weight: float = 0.3
    structure_weight: float = 0.0
    steps: int = 1000
    batch_size: int = 160
    learning_rate: float = 5e-3
    hidden: int = 64
    rounds: int = 3
    dimension: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        weights = {"guide_weight": 0, "reconstruction_weight": 0, "structure_weight": 0}
        sizes = {"hidden": 1, "rounds": 1, "dimension": 1, "batch_size": 2 * _GROUP}
        at_least("encoder", self, EncoderError, iterations=0, steps=0, seed=0, **weights, **sizes)
        if self.guide is not None:
            make_guide(self.guide, self.iterations)


class Encoder:
    """A trained network with what belongs to it.

    Args:
        network: maps graphs to vectors.
        vocabulary: operations it knows.
        zero_ops: operations that let nothing through; their nodes are left out of a graph before it is embedded.
        config: how it was trained.
        report: figures of the last tenth of training (`train_encoder`).
    """

    def __init__(
        self,
        network: GraphNetwork,
        vocabulary: tuple[str, ...],
        zero_ops: frozenset[str],
        config: EncoderConfig,
        report: dict[str, float],
    ) -> None:
        self.network = network.eval()
        self.vocabulary = vocabulary
        self.zero_ops = zero_ops
        self.config = config
        self.report = report

    def embed(self, graphs: GraphBatch) -> Floats:
        """Vectors of graphs; float32 (n, dimension).

        Raises:
            EncoderError: the graphs have another vocabulary.
        """
        return self._embed((self.network,), graphs)[0]

    def embed_beside(self, others: UntrainedNetworks, graphs: GraphBatch) -> tuple[Floats, Floats]:
        """Vectors of graphs as `embed` gives them, and what untrained networks of the same vocabulary make of them."""
        vectors, arbitrary = self._embed((self.network, others), graphs)
        return vectors, arbitrary

    def _embed(self, networks: Sequence[nn.Module], graphs: GraphBatch) -> list[Floats]:
        if graphs.vocabulary != self.vocabulary:
            raise EncoderError(
                f"The encoder was trained for the operations {self.vocabulary}, the graphs have {graphs.vocabulary}. "
                "Train one for this space (load_or_train)."
            )
        with torch.inference_mode():
            return [found.numpy() for found in _in_chunks(networks, without_zero_ops(graphs, self.zero_ops))]


def _in_chunks(networks: Sequence[nn.Module], graphs: GraphBatch, places: Floats | None = None) -> list[Tensor]:
    """What each network makes of graphs, graphs of like size together so that little is padded."""
    order = np.argsort(graphs.sizes, kind="stable")
    step = min(_EMBED_CHUNK, max(64, len(graphs) // 3))
    parts: list[list[Tensor]] = [[] for _ in networks]
    for k in range(0, max(len(graphs), 1), step):
        rows = order[k : k + step]
        inputs = as_tensors(NodeInputs.of(graphs.take(rows), None if places is None else places[rows]))
        for part, network in zip(parts, networks, strict=True):
            part.append(network(*inputs))
    back = torch.from_numpy(np.argsort(order, kind="stable"))
    return [torch.cat(part)[back] for part in parts]


def train_encoder(
    space: SearchSpace, config: EncoderConfig = EncoderConfig(), progress: Progress | None = None
) -> Encoder:
    """An encoder for the graphs of a space.

    Args:
        space: gives graphs to learn from; no accuracy is asked for.
        config: how to build and train.
        progress: called after each step with (step, steps, loss).

    Returns:
        The encoder. Its report holds, averaged over the last tenth of the steps: ``guide_error``, the squared error of
        cosines as a share of the guide's variance; ``op_accuracy``, ``edge_accuracy`` and ``edge_recall`` of
        reconstruction; ``structure_r2``.
    """
    rng = np.random.default_rng([config.seed, 20210207])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = GraphNetwork(len(space.vocabulary), config.hidden, config.rounds, config.dimension)
        reference = structural_features(space.sample(2048, rng).graphs, space.zero_ops, space.identity_ops)
        scaling = reference.mean(axis=0), np.maximum(reference.std(axis=0), 1e-3)
        heads = Heads(len(space.vocabulary), config.dimension, MAX_NODES, reference.shape[1])
    guide = None if config.guide is None else make_guide(config.guide, config.iterations, space.identity_ops)
    parameters = [*network.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=max(config.steps, 2), pct_start=0.1
    )
    figures: list[dict[str, float]] = []
    network.train()
    groups = config.batch_size // _GROUP
    for step in range(config.steps):
        if step % _STOCK_STEPS == 0:
            batches = min(_STOCK_BATCHES, config.steps - step)
            stock = _Stock.draw(space, guide, scaling, groups * batches, rng)
        chosen = rng.choice(stock.groups, groups, replace=False)
        loss, figure = _loss(network, heads, guide, stock.take(chosen), config)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step >= config.steps - max(config.steps // 10, 1):
            figures.append(figure)
        if progress is not None:
            progress(step + 1, config.steps, float(loss.detach()))
    report = {name: float(np.mean([f[name] for f in figures])) for name in (figures[0] if figures else {})}
    return Encoder(network, space.vocabulary, space.zero_ops, config, report)


@dataclass(frozen=True, eq=False)
class _Stock:
    """Graphs to train on, with all that is asked about them, in groups of `_GROUP`: row k is of group k % groups."""

    graphs: GraphBatch
    group: NDArray[np.intp]
    places: Floats
    order: NDArray[np.intp]
    structure: Floats
    guide_features: Any

    @property
    def groups(self) -> int:
        return len(self.graphs) // _GROUP

    @classmethod
    def draw(
        cls,
        space: SearchSpace,
        guide: Guide | None,
        scaling: tuple[Floats, Floats],
        groups: int,
        rng: np.random.Generator,
    ) -> _Stock:
        """Random candidates, their edits and shuffles."""
        pool = space.all()
        first = space.sample(groups, rng) if pool is None else pool.take(rng.integers(0, len(pool), groups))
        members, last = [first], first
        for before, now in zip((0, *_EDITS), _EDITS, strict=False):
            for _ in range(now - before):
                last = space.mutate(last, rng)
            members.append(last)
        members.append(CandidateBatch(shuffled(first.graphs, rng), first.macro))
        drawn = CandidateBatch.concat(members).graphs
        structure = (structural_features(drawn, space.zero_ops, space.identity_ops) - scaling[0]) / scaling[1]
        graphs = without_zero_ops(drawn, space.zero_ops)
        inputs = NodeInputs.of(graphs)
        return cls(
            graphs,
            np.tile(np.arange(groups), _GROUP),
            inputs.places,
            decoding_order(inputs),
            structure.clip(-4, 4).astype(np.float32),
            None if guide is None else guide.features(graphs),
        )

    def take(self, chosen: NDArray[np.intp]) -> _Stock:
        """The groups ``chosen``."""
        rows = (np.arange(_GROUP)[:, None] * self.groups + chosen).reshape(-1)
        return _Stock(
            self.graphs.take(rows),
            self.group[rows],
            self.places[rows],
            self.order[rows],
            self.structure[rows],
            None if self.guide_features is None else self.guide_features[rows],
        )


def shuffled(graphs: GraphBatch, rng: np.random.Generator) -> GraphBatch:
    """The graphs with the operations of their inner nodes in another order: same edges, same histogram."""
    inner = graphs.ops >= FIRST_OP_CODE
    keys = np.where(inner, rng.random(graphs.ops.shape), 2.0)
    keys[:, 0] = -1.0  # the input stays first; ranks of inner nodes then are their places
    order = np.argsort(keys, axis=1)
    ops = graphs.ops.copy()
    ops[inner] = np.take_along_axis(graphs.ops, order, axis=1)[inner]
    return GraphBatch(graphs.vocabulary, graphs.sizes, ops, graphs.successors)


def decoding_order(inputs: NodeInputs) -> NDArray[np.intp]:
    """Nodes by longest path from the input, then label, then the other places; padding last; (n, w).

    It depends on the graph, not on how its nodes are numbered, save for nodes that agree in all of these.
    """
    padding = inputs.labels == 0
    depth = np.where(padding, np.float32(99), inputs.places[:, :, 0])
    rest = inputs.places @ np.sqrt(np.arange(2, 2 + inputs.places.shape[2], dtype=np.float32))
    return np.lexsort((rest.round(4), inputs.labels, depth.round(3)), axis=1)


def _loss(
    network: GraphNetwork, heads: Heads, guide: Guide | None, batch: _Stock, config: EncoderConfig
) -> tuple[Tensor, dict[str, float]]:
    vectors = _in_chunks((network,), batch.graphs, batch.places)[0]
    loss = vectors.new_zeros(())
    figure: dict[str, float] = {}
    if guide is not None:
        part = _similarity_loss(vectors, guide.gram(batch.guide_features), batch.group)
        figure["guide_error"] = float(part.detach())
        loss = loss + config.guide_weight * part
    if config.reconstruction_weight:
        part, accuracies = _reconstruction_loss(heads, vectors, batch)
        figure |= accuracies
        loss = loss + config.reconstruction_weight * part
    if config.structure_weight:
        wanted = torch.from_numpy(batch.structure)
        part = F.mse_loss(heads.structure(vectors), wanted)
        figure["structure_r2"] = float(1 - part.detach() / wanted.var(dim=0).mean())
        loss = loss + config.structure_weight * part
    return loss, figure


def _similarity_loss(vectors: Tensor, wanted: Floats, group: NDArray[np.intp]) -> Tensor:
    """Squared error of cosines as a share of the guide's variance; pairs of one group weigh as much as all others."""
    unit = F.normalize(vectors, dim=1)
    target = torch.from_numpy(wanted)
    error = (unit @ unit.T - target).square()
    other = torch.from_numpy(group[:, None] != group[None, :])
    same = (~other).fill_diagonal_(False)
    shares = [error[pairs].mean() / target[pairs].var().clamp(min=1e-4) for pairs in (same, other)]
    return (shares[0] + shares[1]) / 2


def _reconstruction_loss(heads: Heads, vectors: Tensor, batch: _Stock) -> tuple[Tensor, dict[str, float]]:
    inputs = NodeInputs.of(batch.graphs, batch.places)
    n, width = inputs.labels.shape
    order = batch.order[:, :width]
    labels = torch.from_numpy(np.take_along_axis(inputs.labels, order, axis=1))
    edges = torch.from_numpy(inputs.adjacency[np.arange(n)[:, None, None], order[:, :, None], order[:, None, :]])
    ops_scores, edge_scores = heads(vectors)
    ops_scores, edge_scores = ops_scores[:, :width], edge_scores[:, :width, :width]
    node = labels > 0
    possible = (node[:, :, None] & node[:, None, :]).triu(1)
    inner = labels >= FIRST_OP_CODE
    ops_loss = F.cross_entropy(ops_scores.reshape(n * width, -1), labels.reshape(-1))
    edge_loss = F.binary_cross_entropy_with_logits(edge_scores[possible], edges[possible])
    with torch.no_grad():
        right = ops_scores.argmax(dim=2) == labels
        said = edge_scores[possible] > 0
        true = edges[possible] > 0
        figures = {
            "op_accuracy": float(right[inner].float().mean()),
            "edge_accuracy": float((said == true).float().mean()),
            "edge_recall": float(said[true].float().mean()),
        }
    return ops_loss + edge_loss, figures


def config_key(config: EncoderConfig) -> dict[str, object]:
    """The config as plain data."""
    return asdict(config)

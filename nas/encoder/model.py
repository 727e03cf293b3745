"""The encoder's network: rounds of messages along both edge directions, pooled to one vector a graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gemnet.cell_graph import FIRST_OP_CODE
from nas.encoder.inputs import PLACES, NodeInputs


class GraphNetwork(nn.Module):
    """Maps labelled DAGs to vectors; isomorphic graphs get the same one, since every step is a sum over sets.

    A round is h + relu(W h + gate(label) * V [in, out] + b), with ``in`` and ``out`` the sums of the predecessors' and
    successors' states, each divided by the root of their number: the label's gate stands for graded WL's outer product
    with the label. Each round's states are pooled by sum and maximum, normalised by themselves like each depth of the
    guide, and all are folded to the vector by a linear map beside a small network.

    Args:
        vocabulary_size: number of operations.
        hidden: width of a node's state.
        rounds: rounds of messages.
        dimension: numbers in a graph's vector.
    """

    def __init__(self, vocabulary_size: int, hidden: int = 64, rounds: int = 3, dimension: int = 64) -> None:
        super().__init__()
        labels = FIRST_OP_CODE + vocabulary_size
        self.label = nn.Embedding(labels, hidden)
        self.place = nn.Linear(PLACES, hidden)
        self.own = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(rounds))
        self.around = nn.ModuleList(nn.Linear(2 * hidden, hidden, bias=False) for _ in range(rounds))
        self.gate = nn.ModuleList(nn.Embedding(labels, hidden) for _ in range(rounds))
        self.dimension = dimension
        pooled = 2 * (hidden + 1) * (rounds + 1)
        self.straight = nn.Linear(pooled, dimension)
        self.curved = nn.Sequential(nn.Linear(pooled, 2 * dimension), nn.GELU(), nn.Linear(2 * dimension, dimension))

    def forward(self, labels: Tensor, in_edges: Tensor, out_edges: Tensor, places: Tensor) -> Tensor:
        """Vectors of n graphs of at most w nodes.

        Args:
            labels: label codes, 0 pads; int64 (n, w).
            in_edges, out_edges: matrices that sum a node's predecessors and successors, divided by the root of their
                number; float32 (n, w, w).
            places: `place_on_paths`; float32 (n, w, PLACES).

        Returns:
            (n, dimension).
        """
        read = self.read(labels, in_edges, out_edges, places)
        return self.straight(read) + self.curved(read)

    def read(self, labels: Tensor, in_edges: Tensor, out_edges: Tensor, places: Tensor) -> Tensor:
        """What `forward` makes vectors of, from the same arguments: the pooled states of all rounds.

        Returns:
            (n, 2 * (hidden + 1) * (rounds + 1)).
        """
        node = (labels > 0).unsqueeze(2)
        state = (self.label(labels) + self.place(places)).relu() * node
        pooled = self._pool(state)
        for own, around, gate in zip(self.own, self.around, self.gate, strict=True):
            messages = torch.cat([in_edges @ state, out_edges @ state], dim=2)
            state = state + torch.addcmul(own(state), gate(labels), around(messages)).relu() * node
            pooled += self._pool(state)
        return torch.cat(pooled, dim=1)

    @staticmethod
    def _pool(state: Tensor) -> list[Tensor]:
        # States are never negative, so padding's zeros do not disturb the maximum.
        parts = []
        for total in (state.sum(dim=1), state.amax(dim=1)):
            norm = torch.linalg.vector_norm(total, dim=1, keepdim=True).clamp(min=1e-6)
            parts += [total * (total.shape[1] ** 0.5 / norm), norm.log()]
        return parts


class UntrainedNetworks(nn.Module):
    """Small networks as they are initialised, the same in every process: arbitrary functions of a graph.

    ROCKET (Dempster, Petitjean and Webb, 2020, arXiv 1910.13051) tells time series apart by what random convolutions
    make of them; this is the same for graphs. A trained vector holds much of what structural features hold, too.

    Args:
        vocabulary_size: number of operations.
        networks: how many; at least one.
    """

    HIDDEN = 16
    """Width of a node's state."""

    def __init__(self, vocabulary_size: int, networks: int) -> None:
        super().__init__()
        made = []
        with torch.random.fork_rng(devices=[]):
            for seed in range(networks):
                torch.manual_seed(seed)
                made.append(GraphNetwork(vocabulary_size, self.HIDDEN))
        self.networks = made

    def forward(self, *graphs: Tensor) -> Tensor:
        """What `GraphNetwork.read` gives of each network, side by side: (n, networks * 136)."""
        return torch.cat([network.read(*graphs) for network in self.networks], dim=1)


class Heads(nn.Module):
    """What the vector is asked for in training, besides similarity: the graph itself and its structural features.

    Nodes are asked for by their place in `decoding_order`, which depends on the graph alone.

    Args:
        vocabulary_size: number of operations.
        dimension: numbers in a graph's vector.
        width: most nodes of a graph.
        structure: number of structural features.
    """

    def __init__(self, vocabulary_size: int, dimension: int, width: int, structure: int) -> None:
        super().__init__()
        self.labels_at = (width, FIRST_OP_CODE + vocabulary_size)
        self.trunk = nn.Sequential(nn.Linear(dimension, 256), nn.ReLU())
        self.ops = nn.Linear(256, width * self.labels_at[1])
        self.edges = nn.Linear(256, width * width)
        self.structure = nn.Linear(dimension, structure)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of labels (n, width, labels) and of edges (n, width, width) at each place."""
        hidden = self.trunk(vectors)
        width = self.labels_at[0]
        return self.ops(hidden).view(-1, *self.labels_at), self.edges(hidden).view(-1, width, width)


def as_tensors(inputs: NodeInputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The network's arguments."""
    out_edges = torch.from_numpy(inputs.adjacency)
    in_edges, out_edges = (
        edges / edges.sum(dim=2, keepdim=True).clamp(min=1).sqrt() for edges in (out_edges.transpose(1, 2), out_edges)
    )
    return torch.from_numpy(inputs.labels), in_edges, out_edges, torch.from_numpy(inputs.places)

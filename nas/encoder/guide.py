"""Similarities of graphs that guide the encoder: graded WL, plain WL, GraKeL's kernels by name.

The plain WL kernel says little at 30 nodes: nearly every colour past depth 0 occurs in one graph only, so two graphs
either share a neighbourhood to the last edge or have nothing in common, and what remains is the histogram of
operations. *Graded* WL keeps the refinement and lets neighbourhoods resemble each other. A node's colour is a vector:
the label at depth 0, and at depth t

    colour(v) = label(v) (x) [1, in(v), out(v)]

with in(v) and out(v) the sums of the predecessors' and successors' colours at depth t - 1, weighed by how many edges
lead there and divided by the root of these weights' squares, and (x) the outer product.
The dot product of two such colours is 0 for different labels; for equal ones it counts how far the two neighbourhoods
agree, recursively: the WL colour's test of equality made soft. A graph's vector at depth t is the sum of its nodes';
the similarity of two graphs is the mean of the cosines at each depth, so that no depth drowns another.
Outer products would grow without bound; from depth 1 on a fixed Gaussian projection, which keeps dot products in
expectation (Johnson and Lindenstrauss), folds them to `FOLDED` numbers.

Two things make it a similarity of what cells compute, not only of how they are drawn. It refines the effective graph
(`nas.graphs.effective`), where zeros and identities are gone. And it sums colours three times: each node alike,
weighed by the chance that a walk backwards from the output meets the node, and by the same for a walk forwards from the
input; a node whose result drowns in a sum of thirty counts little.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Collection
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from gemnet.cell_graph import INPUT, OUTPUT, GraphBatch
from gemnet.errors import GemnetError, nearest
from nas.graphs.effective import EffectiveGraphs
from nas.graphs.wl import label_colours, wl_features

Floats = NDArray[np.float32]

FOLDED = 192
_CHUNK = 512

# GraKeL's kernels for graphs with node labels, and arguments that keep them quick on graphs of 32 nodes.
_GRAKEL: dict[str, tuple[str, dict[str, Any]]] = {
    "vertex_histogram": ("VertexHistogram", {}),
    "shortest_path": ("ShortestPath", {"algorithm_type": "floyd_warshall"}),
    "graphlet_sampling": ("GraphletSampling", {"sampling": {"n_samples": 50}}),
    "pyramid_match": ("PyramidMatch", {}),
    "propagation": ("Propagation", {}),
    "neighborhood_hash": ("NeighborhoodHash", {}),
    "odd_sth": ("OddSth", {"h": 3}),
    "random_walk": ("RandomWalkLabeled", {}),
    "weisfeiler_lehman": ("WeisfeilerLehman", {}),
    "wl_optimal_assignment": ("WeisfeilerLehmanOptimalAssignment", {}),
}


class GuideError(GemnetError):
    """A guide that does not exist."""


class Guide(Protocol):
    """A similarity of graphs, in two steps, so that what belongs to one graph is computed once."""

    def features(self, graphs: GraphBatch) -> Any:
        """What `gram` needs of each graph: an array, sparse or not, with n rows."""
        ...

    def gram(self, features: Any) -> Floats:
        """Similarity of each pair of rows, at most 1 and 1 on the diagonal; float32 (n, n)."""
        ...


def guide_names() -> tuple[str, ...]:
    """Names that `make_guide` knows."""
    return ("graded_wl", "graded_wl_by_nodes", "wl", *_GRAKEL)


def make_guide(name: str, iterations: int = 2, identity_ops: Collection[str] = ()) -> Guide:
    """The guide of a name.

    Args:
        name: ``graded_wl``; ``graded_wl_by_nodes``, the same on the graph as it is drawn and with nodes alike, not
            weighed by walks; ``wl`` (the plain kernel, both directions), or a GraKeL kernel of `guide_names`.
        iterations: depth h of refinement, where the kernel has one.
        identity_ops: operations that change nothing, for the guide that looks through them.

    Raises:
        GuideError: an unknown name.
    """
    if name == "graded_wl":
        return GradedWL(iterations, identity_ops)
    if name == "graded_wl_by_nodes":
        return GradedWL(iterations, walks=False)
    if name == "wl":
        return PlainWL(iterations)
    if name in _GRAKEL:
        return GraKeLKernel(name, iterations)
    raise GuideError(f"Unknown guide {name!r}.{nearest(name, guide_names())}")


class GradedWL:
    """Graded WL (module docstring).

    Args:
        iterations: depth of refinement.
        identity_ops: operations that change nothing.
        walks: sum colours weighed by walks, too.
    """

    def __init__(self, iterations: int = 2, identity_ops: Collection[str] = (), walks: bool = True) -> None:
        self.iterations = iterations
        self.identity_ops = identity_ops
        self.walks = walks

    def features(self, graphs: GraphBatch) -> Floats:
        """Vectors whose dot products are the similarities; float32 (n, sums * (labels + iterations * `FOLDED`)).

        There are three sums with walks, one without.
        """
        width = (3 if self.walks else 1) * (len(graphs.vocabulary) + 2 + self.iterations * FOLDED)
        result = np.empty((len(graphs), width), dtype=np.float32)
        by_size = np.argsort(graphs.sizes, kind="stable")  # small graphs together need few columns
        for start in range(0, len(graphs), _CHUNK):
            rows = by_size[start : start + _CHUNK]
            widest = int(graphs.sizes[rows[-1]])
            result[rows] = self._chunk(
                GraphBatch(
                    graphs.vocabulary, graphs.sizes[rows], graphs.ops[rows, :widest], graphs.successors[rows, :widest]
                )
            )
        return result

    def gram(self, features: Floats) -> Floats:
        """Mean over depths and sums of the cosines; float32 (n, n)."""
        return features @ features.T

    def _chunk(self, graphs: GraphBatch) -> Floats:
        effective = EffectiveGraphs.of(graphs, (), self.identity_ops)
        nodes, n = effective.ops.shape
        codes = effective.ops.T.reshape(-1).astype(np.intp)
        sums = [(codes > 0).astype(np.float32)]
        if self.walks:
            sums += [chance.T.reshape(-1) for chance in (effective.backward_walk()[0], effective.forward_walk())]
        pooling = [
            csr_array((weights, np.arange(n * nodes), np.arange(0, n * nodes + 1, nodes)), shape=(n, n * nodes))
            for weights in sums
        ]
        graph, source, target = np.nonzero(effective.weights.transpose(2, 0, 1))
        edges = effective.weights[source, target, graph]
        into = _neighbours(graph * nodes + target, graph * nodes + source, edges, n * nodes)
        out = _neighbours(graph * nodes + source, graph * nodes + target, edges, n * nodes)
        keys = label_colours(graphs.vocabulary)[1:].tolist()
        members = [np.flatnonzero(codes == code) for code in range(1, len(keys) + 1)]
        colours = np.eye(len(keys) + 1, dtype=np.float32)[codes, 1:]
        vectors = [_unit(pool @ colours) for pool in pooling]
        for depth in range(1, self.iterations + 1):
            around = np.concatenate([into @ colours, out @ colours], axis=1)
            colours = np.zeros((n * nodes, FOLDED), dtype=np.float32)
            for key, here in zip(keys, members, strict=True):
                own, neighbours = _folding(key, depth, around.shape[1])
                colours[here] = around[here] @ neighbours + own
            vectors += [_unit(pool @ colours) for pool in pooling]
        return np.concatenate(vectors, axis=1) / np.float32(np.sqrt(len(vectors)))


def _neighbours(rows: NDArray[np.intp], columns: NDArray[np.intp], weights: Floats, n: int) -> csr_array:
    """A matrix that sums what neighbours have: each row's weights, of length 1 together."""
    length = np.sqrt(np.bincount(rows, weights.astype(np.float64) ** 2, minlength=n))
    return csr_array(((weights / length[rows]).astype(np.float32), (rows, columns)), shape=(n, n))


@lru_cache(maxsize=512)
def _folding(label: int, depth: int, width: int) -> tuple[Floats, Floats]:
    """Gaussian projections of a label's outer product with 1 and with [in, out], the same in every process."""
    rng = np.random.default_rng([label, depth, width])
    matrix = rng.standard_normal((1 + width, FOLDED), dtype=np.float32) / np.float32(np.sqrt(FOLDED))
    return matrix[0], matrix[1:]


def _unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))


class PlainWL:
    """The normalised WL kernel over both edge directions.

    Args:
        iterations: depth of refinement.
    """

    def __init__(self, iterations: int = 2) -> None:
        self.iterations = iterations

    def features(self, graphs: GraphBatch) -> csr_array:
        """`nas.graphs.wl.wl_features`, each row of length 1."""
        features = wl_features(graphs, self.iterations)
        return csr_array(features.multiply(1 / np.sqrt(features.multiply(features).sum(axis=1))[:, None]))

    def gram(self, features: csr_array) -> Floats:
        """The normalised kernel; float32 (n, n)."""
        return (features @ features.T).toarray()


def _grakel(name: str) -> Any:
    """GraKeL, imported late: that is slow, and the other guides don't need it; from Python 3.13 on it has no wheels.

    Raises:
        GuideError: it is not installed.
    """
    try:
        return importlib.import_module("grakel")
    except ImportError as error:
        raise GuideError(
            f"The guide {name!r} is a kernel of GraKeL, which is not installed ({error}). Use 'graded_wl', or install "
            "grakel with Python 3.10 to 3.12."
        ) from None


class GraKeLKernel:
    """A kernel of the GraKeL library (Siglidis et al., JMLR 2020), normalised.

    Args:
        name: a name in `guide_names`.
        iterations: depth, for the kernels that refine.
    """

    def __init__(self, name: str, iterations: int = 2) -> None:
        _grakel(name)  # a guide that can't be had is said before anything is trained
        self.name = name
        self.iterations = iterations

    def features(self, graphs: GraphBatch) -> NDArray[np.object_]:
        """The graphs as GraKeL reads them."""
        grakel = _grakel(self.name)
        # Numbers for labels, and an entry for every node, since some kernels need both.
        code = {label: k for k, label in enumerate((INPUT, OUTPUT, *graphs.vocabulary))}
        packed = np.empty(len(graphs), dtype=np.object_)
        for row in range(len(graphs)):
            graph = graphs.graph(row)
            edges = {v: dict.fromkeys(graph.successors(v), 1.0) for v in range(graph.size)}
            packed[row] = grakel.Graph(edges, {v: code[label] for v, label in enumerate(graph.labels)})
        return packed

    def gram(self, features: NDArray[np.object_]) -> Floats:
        """The kernel's normalised Gram matrix; float32 (n, n)."""
        grakel = _grakel(self.name)
        class_name, arguments = _GRAKEL[self.name]
        if class_name.startswith("WeisfeilerLehman"):
            arguments = arguments | {"n_iter": max(self.iterations, 1)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on each change of a graph's inner format
            kernel = getattr(grakel, class_name)(normalize=True, **arguments)
            return np.nan_to_num(np.asarray(kernel.fit_transform(list(features)), dtype=np.float32))

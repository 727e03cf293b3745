"""The GEMNet space: DAG cells of up to 30 nodes in a network of searched width, expansion, attention and activation.

The supernet of the paper is the complete DAG over the nodes; a cell is a subgraph of it with an operation a node. All
stages repeat one cell, unless `GEMNetSpace` is told to give some of them, early ones say, to a hand-made one. An
identity that only passes on what it reads is left out of every sample and every mutant: with and without it, the
network is the same. MobileNetV2's inverted residual is the cell with one depthwise node and ``inner_ratio`` 6.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemnet.cell_graph import FIRST_OP_CODE, MAX_INNER_NODES, CellGraph, GraphBatch
from gemnet.errors import nearest
from gemnet.genome import CellSpec, Genome, read_layers
from gemnet.macs import CostModel
from gemnet.operations import parse_operation
from gemnet.templates import Template, template
from nas.spaces.base import Candidate, CandidateBatch, Choice, SearchSpace, SpaceError
from nas.spaces.dag import edit, sample_dags, without_detours

VOCABULARY = (
    "dw3x3_bn_act",
    "dw5x5_bn_act",
    "dw3x3_bn",
    "conv1x1_bn_act",
    "conv3x3_bn_act",
    "max_pool_3x3",
    "avg_pool_3x3",
    "identity",
)
MACRO_CHOICES: Mapping[str, tuple[Choice, ...]] = MappingProxyType(
    {
        "width": (0.5, 0.625, 0.75, 0.875, 1.0, 1.125, 1.25, 1.5),
        "inner_ratio": (1, 2, 3, 4, 6),
        "se_ratio": (0.0, 0.25),
        "activation": ("relu", "hswish"),
    }
)
FURTHER_CHOICES = ("residual", "expand", "final_activation")
"""Choices that are made only where ``choices`` lists values for them; `gemnet.templates.Template.genome` knows them."""
LAYOUT = "layout"
"""The choice among ``layouts``."""
LAYOUT_KEYS = (
    "stem",
    "stem_width",
    "stage_widths",
    "stage_depths",
    "stage_strides",
    "stage_cells",
    "stage_reductions",
    "head_width",
)
_OF_STAGES = tuple(key for key in LAYOUT_KEYS if key.startswith("stage_"))
FEW = 16
"""Candidates up to which latencies are estimated one by one."""
_IDENTITY = "identity"
_MACRO_SHARE = 0.25  # of edits go to a macro choice


def _sees_and_learns(op: str) -> bool:
    """Whether an operation has weights over a neighbourhood."""
    return any(step.kind in ("conv", "dw", "sep") and step.kernel > 1 for step in parse_operation(op).steps)


class GEMNetSpace(SearchSpace):
    """Cells of 1 to ``max_nodes`` inner nodes without dead nodes, and the choices around them.

    Args:
        form: ``imagenet`` (stride 32, four levels) or ``cifar`` (small images, three levels).
        size: ``a``, ``b`` or ``c``: depth and base widths of the network around the cell.
        max_nodes: most inner nodes, 1 to 30.
        needs_convolution: whether a cell has at least one convolution over a neighbourhood. Without it a cell of pools
            and identities is one, too: cheap, and the best where images are easy.
        vocabulary: operations a node may carry.
        choices: values of a macro choice, by name, in place of the default ones. ``residual``, ``expand`` and
            ``final_activation`` (see `gemnet.genome.CellSpec`; None for none) are searched only where listed here.
        layouts: other networks around the cell, by name, each with what differs of the settings from ``stem`` to
            ``head_width`` below. Which one is then a macro choice, ``layout``.
        input_size: side of the images at which MACs are counted, in pixels; the template's by default.
        num_classes: classes of the classifier.
        in_chans: channels of the images.
        stage_widths: channels of each stage at width 1, in place of the template's.
        stage_depths: cells of each stage, likewise.
        stage_strides: stride of each stage, likewise; given together with widths and depths there may be more stages or
            fewer.
        stage_cells: what each stage repeats: ``cell``, the searched one, or a hand-made one, by its name in
            `gemnet.templates.BLOCKS` or ``cells``; at least one stage repeats ``cell``.
        stage_reductions: hand-made cells that stages begin with, None for none; each counts to its stage's depth.
        stem: operations in place of one 3x3 convolution, as in a genome: ``[dict(op='conv4x4_bn_act', width=32,
            stride=4)]``.
        stem_width: channels of the stem, in place of the template's.
        head_width: channels of the convolution before the global pool, likewise; 0 leaves it out.
        cells: further hand-made cells by name, as in a genome.
        width_step: stages' widths are rounded to multiples of it.

    Attributes:
        latency_model: milliseconds of what `costs` gives, as `nas.evaluation.latency.LatencyModel`; None until it is
            measured.
        latency_of: milliseconds of a genome, estimated more closely; None where there is no such estimate.

    Raises:
        SpaceError: an unknown choice, an empty list, a number out of range.
        GemnetError: an operation or form that does not exist.
    """

    name = "gemnet"
    identity_ops = frozenset({_IDENTITY})
    zero_ops = frozenset({"none"})

    def __init__(
        self,
        form: str = "cifar",
        size: str = "a",
        max_nodes: int = MAX_INNER_NODES,
        needs_convolution: bool = False,
        vocabulary: Sequence[str] = VOCABULARY,
        choices: Mapping[str, Sequence[Choice]] | None = None,
        layouts: Mapping[str, Mapping[str, Any]] | None = None,
        input_size: int | None = None,
        num_classes: int | None = None,
        in_chans: int = 3,
        stage_widths: Sequence[int] | None = None,
        stage_depths: Sequence[int] | None = None,
        stage_strides: Sequence[int] | None = None,
        stem_width: int | None = None,
        head_width: int | None = None,
        width_step: int | None = None,
        stage_cells: Sequence[str] | None = None,
        stage_reductions: Sequence[str | None] | None = None,
        stem: Sequence[Mapping[str, Any]] | None = None,
        cells: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        if not 1 <= max_nodes <= MAX_INNER_NODES:
            raise SpaceError(f"max_nodes is 1 to {MAX_INNER_NODES}, got {max_nodes}.")
        if not vocabulary or len(set(vocabulary)) != len(vocabulary):
            raise SpaceError(f"vocabulary lists each operation once and at least one, got {list(vocabulary)}.")
        for op in vocabulary:
            if parse_operation(op).is_none:
                raise SpaceError(
                    "vocabulary holds 'none', but in this space an absent node is simply not there. Remove it."
                )
        self.vocabulary = tuple(vocabulary)
        self.max_nodes = max_nodes
        self.needed = np.array([_sees_and_learns(op) for op in self.vocabulary]) if needs_convolution else None
        if self.needed is not None and not self.needed.any():
            raise SpaceError(f"needs_convolution: none of {list(vocabulary)} is a convolution larger than 1x1.")
        self.in_chans = in_chans
        self.latency_model: Callable[[NDArray[np.int64]], NDArray[np.float64]] | None = None
        self.latency_of: Callable[[Genome], float] | None = None
        around: dict[str, Any] = {
            "stem": stem,
            "stem_width": stem_width,
            "stage_widths": stage_widths,
            "stage_depths": stage_depths,
            "stage_strides": stage_strides,
            "stage_cells": stage_cells,
            "stage_reductions": stage_reductions,
            "head_width": head_width,
        }
        further = {name: CellSpec.from_dict(cell, f"cells.{name}") for name, cell in (cells or {}).items()}
        fixed = {"width_step": width_step, "input_size": input_size, "num_classes": num_classes, "further": further}
        self.template = self._template(form, size, around, fixed)
        self.layouts: Mapping[str, Template] = MappingProxyType(
            {
                name: self._template(form, size, {**around, **self._check_layout(name, other)}, fixed)
                for name, other in (layouts or {}).items()
            }
        )
        self.macro_choices = MappingProxyType(self._macro_choices(choices or {}))
        self._costs = CostModel(
            self._network,
            self.vocabulary,
            self.macro_choices,
            input_size=self.template.input_size,
            num_classes=self.template.num_classes,
            in_chans=in_chans,
        )

    def _macro_choices(self, choices: Mapping[str, Sequence[Choice]]) -> dict[str, tuple[Choice, ...]]:
        macro = dict(MACRO_CHOICES)
        for key, values in choices.items():
            if key == LAYOUT:
                raise SpaceError("Macro choice 'layout' takes its values from the space's layouts: name them there.")
            if key not in macro and key not in FURTHER_CHOICES:
                raise SpaceError(f"Unknown macro choice {key!r}.{nearest(key, (*macro, *FURTHER_CHOICES))}")
            if not values or len(set(values)) != len(values):
                raise SpaceError(f"Macro choice {key!r} lists each value once and at least one, got {list(values)}.")
            macro[key] = tuple(values)
        if self.layouts:
            macro[LAYOUT] = tuple(self.layouts)
        return macro

    @staticmethod
    def _check_layout(name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        if not isinstance(values, Mapping):
            raise SpaceError(f"layouts: {name!r} is a dict of {', '.join(LAYOUT_KEYS)}, got {values!r}.")
        for key in values:
            if key not in LAYOUT_KEYS:
                raise SpaceError(f"layouts: {name!r} has no setting {key!r}.{nearest(key, LAYOUT_KEYS)}")
        return values

    @staticmethod
    def _template(form: str, size: str, around: Mapping[str, Any], fixed: Mapping[str, Any]) -> Template:
        base = template(form, size)  # type: ignore[arg-type]  # checked inside, with a message
        changes: dict[str, Any] = {key: value for key, value in fixed.items() if value is not None}
        for key, value in around.items():
            if value is not None:
                changes[key.removeprefix("stage_")] = tuple(value) if key in _OF_STAGES else value
        if "stem" in changes:
            changes["stem"] = read_layers(changes, "stem")
        whole = {each.name: changes.get(each.name, getattr(base, each.name)) for each in fields(base)}
        counts = {key: len(whole[key.removeprefix("stage_")]) for key in _OF_STAGES}
        counts = {
            key: count for key, count in counts.items() if count or key not in ("stage_cells", "stage_reductions")
        }
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{key} {count}" for key, count in counts.items())
            raise SpaceError(
                f"The stages' lists differ in length: {listed}. Form {form!r} has {len(base.widths)} stages; for "
                "another number of stages give all three: widths, depths and strides."
            )
        return Template(**whole)

    def _network(self, cell: CellGraph, layout: str | None = None, **macro: Any) -> Genome:
        """The network that repeats a cell, with what surrounds it."""
        return (self.template if layout is None else self.layouts[layout]).genome(cell, **macro)

    def sample(self, n: int, rng: np.random.Generator) -> CandidateBatch:
        """``n`` candidates: a cell of `sample_dags`, every macro choice uniform."""
        graphs = self._repaired(sample_dags(n, self.vocabulary, rng, self.max_nodes), rng)
        macro = np.stack([rng.integers(0, len(values), n) for values in self.macro_choices.values()], axis=1)
        return CandidateBatch(without_detours(graphs, _IDENTITY), macro.astype(np.int16))

    def mutate(self, parents: CandidateBatch, rng: np.random.Generator, edits: int = 1) -> CandidateBatch:
        """One child a parent, ``edits`` edits away: an operation, an edge, a node, or a step of a macro choice."""
        graphs, macro = parents.graphs, parents.macro.copy()
        counts = np.array([len(values) for values in self.macro_choices.values()])
        movable = np.flatnonzero(counts > 1)
        for _ in range(edits):
            of_macro = rng.random(len(graphs)) < (_MACRO_SHARE if movable.size else 0.0)
            rows = np.flatnonzero(of_macro)
            if rows.size:
                column = rng.choice(movable, rows.size)
                step = np.where(rng.random(rows.size) < 0.5, 1, -1)
                value = macro[rows, column] + step
                # Past either end, step back: an edit is always a change.
                beyond = (value < 0) | (value >= counts[column])
                macro[rows, column] = np.where(beyond, macro[rows, column] - step, value)
            rest = np.flatnonzero(~of_macro)
            if rest.size:
                edited = edit(graphs.take(rest), rng, self.max_nodes)
                order = np.argsort(np.concatenate([rows, rest]), kind="stable")
                graphs = GraphBatch.concat([graphs.take(rows), edited]).take(order)
        return CandidateBatch(without_detours(self._repaired(graphs, rng), _IDENTITY), macro)

    def _holds_what_it_needs(self, graphs: GraphBatch) -> NDArray[np.bool_]:
        """Which graphs have the convolution that the space asks for; (n,)."""
        if self.needed is None:
            return np.ones(len(graphs), dtype=np.bool_)
        return np.asarray(np.isin(graphs.ops, FIRST_OP_CODE + np.flatnonzero(self.needed)).any(axis=1))

    def _repaired(self, graphs: GraphBatch, rng: np.random.Generator) -> GraphBatch:
        """The graphs, a random node of those without a needed convolution turned into one."""
        rows = np.flatnonzero(~self._holds_what_it_needs(graphs))
        if not rows.size or self.needed is None:
            return graphs
        ops = graphs.ops.copy()
        node = 1 + rng.integers(0, graphs.sizes[rows].astype(np.int64) - 2)
        ops[rows, node] = FIRST_OP_CODE + rng.choice(np.flatnonzero(self.needed), rows.size)
        return GraphBatch(graphs.vocabulary, graphs.sizes, ops, graphs.successors)

    def neighbours(self, candidate: Candidate) -> CandidateBatch:
        """Every other operation at a node, every edge added or removed, every node dropped, every macro step of one.

        Additions of a node are left out: they alone would be more than all the rest.
        """
        cell = candidate.cell
        cells = [
            CellGraph((*cell.ops[:k], op, *cell.ops[k + 1 :]), cell.edges)
            for k, old in enumerate(cell.ops)
            for op in self.vocabulary
            if op != old
        ]
        cells += [
            CellGraph(cell.ops, cell.edges ^ {(i, j)}) for i in range(cell.size - 1) for j in range(i + 1, cell.size)
        ]
        cells += [
            CellGraph(cell.ops, frozenset(edge for edge in cell.edges if node not in edge))
            for node in range(1, cell.size - 1)
        ]
        graphs = GraphBatch.from_graphs(cells, self.vocabulary).prune()
        graphs = graphs.take(np.flatnonzero((graphs.sizes > 2) & self._holds_what_it_needs(graphs)))
        graphs = without_detours(graphs, _IDENTITY)
        own = self.pack([candidate])
        steps = []
        for column, values in enumerate(self.macro_choices.values()):
            for value in (own.macro[0, column] - 1, own.macro[0, column] + 1):
                if 0 <= value < len(values):
                    changed = own.macro[0].copy()
                    changed[column] = value
                    steps.append(changed)
        batches = [CandidateBatch(graphs, np.repeat(own.macro, len(graphs), axis=0))]
        if steps:
            batches.append(CandidateBatch(own.graphs.take([0] * len(steps)), np.stack(steps)))
        return CandidateBatch.concat(batches)

    def check(self, candidate: Candidate) -> None:
        """Raises `SpaceError` where the candidate breaks a rule of this space."""
        cell = candidate.cell
        if not 1 <= len(cell.ops) <= self.max_nodes:
            raise SpaceError(f"A cell of this space has 1 to {self.max_nodes} inner nodes, got {len(cell.ops)}.")
        if not cell.is_connected:
            raise SpaceError("No path leads from the cell's input (node 0) to its output. Add edges.")
        dead = cell.dead_nodes()
        if dead:
            raise SpaceError(
                f"Node {dead[0]} ({cell.labels[dead[0]]}) lies on no path from input to output. "
                "Remove it or connect it."
            )
        if not self._holds_what_it_needs(self.pack([candidate]).graphs)[0]:  # packing checks operations and choices
            raise SpaceError(f"A cell of this space has a convolution larger than 1x1, got {sorted(set(cell.ops))}.")

    def macs(self, batch: CandidateBatch) -> NDArray[np.float64]:
        """Multiply-adds of each candidate's network at the template's input size; (n,)."""
        return self._costs.macs(batch.graphs, batch.macro).astype(np.float64)

    def params(self, batch: CandidateBatch) -> NDArray[np.float64]:
        """Parameters of each candidate's network; (n,)."""
        return self._costs.params(batch.graphs, batch.macro).astype(np.float64)

    def live_costs(self, batch: CandidateBatch) -> list[NDArray[np.float64]]:
        """As `SearchSpace.live_costs`; nothing cuts anything off here, and both are counted at once."""
        return list(self._costs.macs_and_params(batch.graphs, batch.macro).T.astype(np.float64))

    def costs(self, batch: CandidateBatch) -> NDArray[np.int64]:
        """All that is counted of each candidate's network, (n, 4); columns as in `gemnet.layers.Cost`."""
        return self._costs.costs(batch.graphs, batch.macro)

    def latency(self, batch: CandidateBatch) -> NDArray[np.float64] | None:
        """Milliseconds an image takes in each candidate's network, estimated; None without a ``latency_model``.

        Few candidates at a time are estimated by ``latency_of``, which knows more of each, where there is one.
        """
        if self.latency_of is not None and len(batch) <= FEW:
            return np.array([self.latency_of(self.genome(self.unpack(batch, row))) for row in range(len(batch))])
        return None if self.latency_model is None else self.latency_model(self.costs(batch))

    @property
    def is_closer_alone(self) -> bool:  # type: ignore[override]  # a constant elsewhere
        """Whether `latency` estimates a few candidates more closely than thousands."""
        return self.latency_of is not None

    @property
    def surroundings(self) -> str:
        """The templates as JSON: what a network depends on besides its candidate."""
        templates = {"": self.template, **self.layouts}
        return json.dumps({name: each.to_dict() for name, each in templates.items()}, sort_keys=True)

    def genome(self, candidate: Candidate, name: str = "", origin: str = "") -> Genome:
        """The genome of a candidate's network."""
        return self._network(candidate.cell, name=name, origin=origin, **dict(candidate.macro))  # type: ignore[arg-type]  # 'layout' is a name

"""Cell semantics: against a plain interpreter, and the promises about memory, bounds and layout."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from random_genomes import OPERATIONS, random_cell, random_graph
from torch import nn

from gemnet.cell import Cell, lay_out
from gemnet.cell_graph import CellGraph
from gemnet.classics import chain, watts_strogatz_cell
from gemnet.genome import CellSpec


def complete(op: str, nodes: int = 30) -> CellGraph:
    last = nodes + 1
    return CellGraph((op,) * nodes, frozenset((i, j) for j in range(1, last + 1) for i in range(j)))


def interpret(cell: Cell, x: torch.Tensor) -> torch.Tensor:
    """What a cell computes, written down plainly: every rule of the design, no thought for memory."""
    spec, graph = cell.layout.spec, cell.layout.spec.graph
    last = graph.size - 1
    raw = cell.expand(x) if cell.expand is not None else x
    change = cell.layout.stride != 1 or raw.shape[1] != cell.layout.inner
    adapted = cell.adapter(raw) if cell.adapter is not None else raw
    useful = {last}
    for node in reversed(range(1, last)):
        if graph.ops[node - 1] != "none" and any(reader in useful for reader in graph.successors(node)):
            useful.add(node)

    def combine(node: int, values: list[torch.Tensor], how: str) -> torch.Tensor:
        if how == "concat":
            return torch.cat(values, 1)
        if how == "sigmoid_weighted" and len(values) > 1:
            weights = torch.sigmoid(cell.edge_weights[str(node)])
            return sum(weight * value for weight, value in zip(weights, values, strict=True))
        total = torch.stack(values).sum(0)
        return total / len(values) if how == "mean" else total

    values: dict[int, torch.Tensor] = {}
    for node in sorted(useful):
        reads = [i for i in graph.predecessors(node) if i == 0 or i in values]
        takes_change = False
        if node != last and change and reads in ([0], []):
            op = graph.ops[node - 1]
            windowed = any(word in op for word in ("conv", "dw", "sep", "pool"))
            dense = any(word in op for word in ("conv", "sep"))
            takes_change = (windowed or cell.layout.stride == 1) and (dense or raw.shape[1] == cell.layout.inner)
        own = raw if takes_change else adapted
        inputs = [own if i == 0 else values[i] for i in reads] or [torch.zeros_like(own)]
        total = combine(node, inputs, spec.output if node == last else spec.aggregate)
        passes_on = node == last or graph.ops[node - 1] == "identity"
        values[node] = total if passes_on else cell.operations[str(node)](total)
    out = values[last]
    for module in (cell.se, cell.project):
        out = out if module is None else module(out)
    if cell.shortcut is not None:
        out = out + cell.shortcut(x)
    return out if cell.final_act is None else cell.final_act(out)


@pytest.mark.parametrize("seed", range(60))
def test_cell_computes_what_the_design_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    spec = random_cell(rng)
    width = int(rng.choice([8, 16]))
    cell = Cell(spec, 8, width, int(rng.integers(1, 3)), activation="silu").eval()
    with torch.no_grad():
        for weight in cell.edge_weights.values():
            weight.normal_()
        x = torch.randn(2, 8, 9, 9)
        expected = interpret(cell, x.clone())
        torch.testing.assert_close(cell(x), expected, rtol=1e-4, atol=1e-5)
    assert expected.shape[1] == width


def test_isomorphic_cells_are_the_same_network() -> None:
    a = CellGraph(("dw3x3_bn", "conv1x1_bn", "identity"), frozenset({(0, 1), (0, 2), (1, 3), (2, 4), (3, 4)}))
    b = CellGraph(("conv1x1_bn", "dw3x3_bn", "identity"), frozenset({(0, 1), (0, 2), (2, 3), (1, 4), (3, 4)}))
    assert CellSpec(a) == CellSpec(b)
    torch.manual_seed(0)
    first = Cell(CellSpec(a), 8, 8)
    torch.manual_seed(0)
    second = Cell(CellSpec(b), 8, 8)
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(first(x), second(x))


def test_default_aggregate_keeps_activations_bounded_at_thirty_nodes() -> None:
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(Cell(CellSpec(complete("identity")), 4, 4)(x), x)  # the mean of x and x is x
    summed = Cell(CellSpec(complete("identity"), aggregate="sum", output="sum"), 4, 4)(x)
    torch.testing.assert_close(summed, x * 2.0**30)  # why sum is not the default: the paths are counted
    for op in ("dw3x3_bn_act", "relu_conv3x3_bn", "avg_pool_3x3", "conv1x1_bn_act"):
        torch.manual_seed(0)
        out = Cell(CellSpec(complete(op)), 4, 4)(x)
        assert out.abs().max() < 10 * x.abs().max()


def test_shares_of_any_size_stay_within_half_precision() -> None:
    # Every identity halves the share that the input has: sixteen of them leave it less than 1 in 65,504.
    edges = {(0, 1), (0, 2), (1, 2), *((n, n + 1) for n in range(2, 18)), *((1, n) for n in range(3, 19))}
    graph = CellGraph(("relu_conv1x1_bn", *["identity"] * 16), frozenset(edges | {(17, 18)}))
    cell = Cell(CellSpec(graph), 8, 8).eval()
    (output,) = [node for node in cell.layout.nodes if node.operation is None]
    assert min(output.shares) < 2**-15
    x = torch.rand(1, 8, 4, 4)
    with torch.no_grad():
        exact = cell(x)
        found = cell.half()(x.half())
    torch.testing.assert_close(found.float(), exact, rtol=1e-2, atol=1e-2)


def test_a_value_is_freed_after_its_last_reader() -> None:
    graph = CellGraph(("dw3x3_bn",) * 20, frozenset((i, i + 1) for i in range(21)) | {(0, 5), (3, 9)})
    cell = Cell(CellSpec(graph), 4, 4).eval()
    made: list[weakref.ref] = []
    alive: list[int] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        alive.append(sum(ref() is not None for ref in made))
        made.append(weakref.ref(output))

    for operation in cell.operations.values():
        operation.register_forward_hook(note)
    with torch.no_grad():
        cell(torch.randn(1, 4, 5, 5))
    assert len(made) == 20
    assert max(alive) <= 3  # what is read now, what a longer edge keeps, what was just replaced


def assert_channels_last(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
    assert output.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("aggregate", ["mean", "sum", "sigmoid_weighted"])
@pytest.mark.parametrize("stride", [1, 2])
def test_channels_last_stays_channels_last(aggregate: str, stride: int) -> None:
    rng = np.random.default_rng(0)
    for operations in (OPERATIONS, ("none", "identity", "dw3x3_bn_act")):
        for _ in range(5):
            spec = CellSpec(
                random_graph(rng, 8, operations),
                aggregate=aggregate,
                output="concat",
                expand="conv1x1_bn_act",
                inner_ratio=2,
                se_ratio=0.25,
                project="conv1x1_bn",
                residual="pool_conv1x1_bn",
            )
            cell = Cell(spec, 8, 16, stride).to(memory_format=torch.channels_last)
            for module in cell.modules():
                if isinstance(module, nn.Conv2d):
                    module.register_forward_hook(assert_channels_last)
            out = cell(torch.randn(2, 8, 9, 9).to(memory_format=torch.channels_last))
            assert_channels_last(cell, (), out)


@pytest.mark.parametrize("stride", [1, 2])
def test_every_parameter_gets_a_gradient(stride: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        graph = watts_strogatz_cell(rng, nodes=12, op="relu_sep3x3_bn")
        spec = CellSpec(
            graph, aggregate="sigmoid_weighted", se_ratio=0.5, residual="conv1x1_bn", final_activation="act"
        )
        cell = Cell(spec, 8, 16, stride)
        cell(torch.randn(2, 8, 8, 8)).square().sum().backward()
        assert all(weight.grad is not None for weight in cell.parameters())


def test_stride_goes_where_the_design_says() -> None:
    # Node 1 reads only the input and strides; node 2 reads both and so sees the pooled input.
    graph = CellGraph(("dw3x3_bn_act", "dw5x5_bn_act"), frozenset({(0, 1), (0, 2), (1, 2), (2, 3)}))
    cell = Cell(CellSpec(graph), 8, 8, stride=2)
    strides = {name: operation.conv_dw.stride for name, operation in cell.operations.items()}
    assert strides == {"1": (2, 2), "2": (1, 1)}
    assert isinstance(cell.adapter[0], nn.AvgPool2d)
    assert len(cell.adapter) == 1
    assert Cell(CellSpec(chain("dw3x3_bn_act")), 8, 8, stride=2).adapter is None


def test_an_identity_that_must_stride_reads_the_pooled_input() -> None:
    x = torch.randn(2, 8, 6, 6)
    cell = Cell(CellSpec(chain("identity")), 8, 8, stride=2)
    torch.testing.assert_close(cell(x), nn.functional.avg_pool2d(x, 2))


def test_nodes_that_cannot_reach_the_output_are_not_built() -> None:
    graph = CellGraph(("conv3x3_bn", "conv3x3_bn", "none"), frozenset({(0, 1), (1, 4), (0, 2), (2, 3), (3, 4)}))
    assert len(Cell(CellSpec(graph), 8, 8).operations) == 1
    layout = lay_out(CellSpec(graph), 8, 8, 1)
    assert layout.cost((4, 4)).params == 9 * 64 + 16


def test_a_cell_without_a_live_path_gives_zeros() -> None:
    cell = Cell(CellSpec(chain("none")), 8, 8, stride=2)
    assert torch.equal(cell(torch.randn(1, 8, 6, 6)), torch.zeros(1, 8, 3, 3))


def test_drop_path_drops_the_branch_of_whole_images_while_training_only() -> None:
    torch.manual_seed(0)
    cell = Cell(CellSpec(chain("conv3x3"), residual="identity"), 8, 8, drop_path=0.5)
    x = torch.randn(32, 8, 5, 5)
    branch = cell.eval()(x) - x
    change = cell.train()(x) - x
    dropped = change.abs().amax((1, 2, 3)) < 1e-6
    assert 4 < int(dropped.sum()) < 28
    torch.testing.assert_close(change[~dropped], 2 * branch[~dropped], rtol=1e-4, atol=1e-4)

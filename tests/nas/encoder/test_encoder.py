"""The encoder: invariance, training, cache."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from renumbering import renumbered

from gemnet.cache import CacheError, cache_root
from gemnet.cell_graph import CellGraph, GraphBatch
from gemnet.errors import GemnetError
from nas.encoder import Encoder, EncoderConfig, EncoderError, cache, encoder_key, load_or_train, train_encoder
from nas.encoder import cache as cache_module
from nas.encoder.guide import make_guide
from nas.encoder.inputs import NodeInputs, without_zero_ops
from nas.encoder.model import GraphNetwork, UntrainedNetworks, as_tensors
from nas.encoder.training import decoding_order, shuffled
from nas.search.config import find_config, load_config
from nas.spaces.dag import sample_dags
from nas.spaces.gemnet import GEMNetSpace
from nas.spaces.nasbench101 import NASBench101
from nas.spaces.nasbench201 import NASBench201

QUICK = EncoderConfig(steps=40, batch_size=80, learning_rate=5e-3, hidden=32, dimension=32)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return train_encoder(NASBench101(), QUICK)


def test_isomorphic_graphs_get_the_same_vector() -> None:
    space = GEMNetSpace()
    rng = np.random.default_rng(0)
    graphs = space.sample(200, rng).graphs
    others = GraphBatch.from_graphs([renumbered(graphs.graph(k), rng) for k in range(200)], space.vocabulary)
    assert not np.array_equal(graphs.ops, others.ops)
    torch.manual_seed(0)
    untrained = train_encoder(space, replace(QUICK, steps=0))
    np.testing.assert_allclose(untrained.embed(graphs), untrained.embed(others), atol=1e-5)


def test_vectors_do_not_depend_on_the_rest_of_the_batch(encoder: Encoder) -> None:
    graphs = NASBench101().sample(700, np.random.default_rng(1)).graphs
    whole = encoder.embed(graphs)
    assert whole.dtype == np.float32
    assert whole.shape == (700, 32)
    np.testing.assert_allclose(encoder.embed(graphs.take([5, 600])), whole[[5, 600]], atol=1e-5)
    assert encoder.embed(graphs.take([])).shape == (0, 32)


def test_training_makes_cosines_follow_the_guide_on_unseen_graphs(encoder: Encoder) -> None:
    space = NASBench101()
    graphs = space.sample(200, np.random.default_rng(77)).graphs
    guide = make_guide("graded_wl")
    pairs = np.triu_indices(200, 1)
    wanted = guide.gram(guide.features(graphs))[pairs]

    def fit(vectors: np.ndarray) -> float:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return float(np.corrcoef((unit @ unit.T)[pairs], wanted)[0, 1])

    assert fit(encoder.embed(graphs)) > 0.9
    assert fit(train_encoder(space, replace(QUICK, steps=0)).embed(graphs)) < 0.85


def test_training_is_reproducible() -> None:
    config = replace(QUICK, steps=3)
    graphs = NASBench101().sample(20, np.random.default_rng(1)).graphs
    first, second = (train_encoder(NASBench101(), config).embed(graphs) for _ in range(2))
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert abs(first - train_encoder(NASBench101(), replace(config, seed=1)).embed(graphs)).max() > 1e-2


def test_training_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(4)
    before = torch.get_rng_state()
    train_encoder(NASBench101(), replace(QUICK, steps=1))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "change",
    [
        {"guide": None},
        {"guide": "wl"},
        {"guide": "vertex_histogram"},
        {"reconstruction_weight": 0.0},
        {"structure_weight": 1.0},
        {"iterations": 1},
    ],
)
def test_every_part_can_be_left_out_or_added(change: dict) -> None:
    encoder = train_encoder(NASBench201(), replace(QUICK, steps=2, **change))
    assert np.isfinite(encoder.embed(NASBench201().sample(9, np.random.default_rng(0)).graphs)).all()
    assert ("guide_error" in encoder.report) == (change.get("guide", "") is not None)
    assert ("op_accuracy" in encoder.report) == (change.get("reconstruction_weight") != 0.0)
    assert ("structure_r2" in encoder.report) == (change.get("structure_weight") == 1.0)


def test_cells_that_differ_behind_a_zero_operation_get_the_same_vector() -> None:
    space = NASBench201()
    cells = space.sample(1, np.random.default_rng(0)).graphs.graph(0)
    ops = ["nor_conv_3x3", "none", "none", "none", "nor_conv_1x1", "skip_connect"]
    first = CellGraph(tuple(ops), cells.edges)  # edge 2->3 reads node 2, which nothing reaches
    second = CellGraph((*ops[:5], "avg_pool_3x3"), cells.edges)
    vectors = train_encoder(space, replace(QUICK, steps=0)).embed(
        GraphBatch.from_graphs([first, second], space.vocabulary)
    )
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


def test_without_zero_ops_keeps_the_ends_of_a_cut_cell() -> None:
    cell = CellGraph(("none", "a"), frozenset({(0, 1), (1, 2), (2, 3)}))
    left = without_zero_ops(GraphBatch.from_graphs([cell], ("a", "none")), {"none"})
    assert left.graph(0) == CellGraph((), frozenset())


def test_places_on_paths_are_those_of_the_graph() -> None:
    import networkx as nx

    graphs = sample_dags(60, ("a", "b"), np.random.default_rng(2), max_nodes=9)
    places = NodeInputs.of(graphs).places
    for k in range(len(graphs)):
        cell = graphs.graph(k)
        graph, last = cell.to_networkx(), cell.size - 1
        for v in range(cell.size):
            paths = list(nx.all_simple_paths(graph, 0, v)) if v else [[0]]
            lengths = [len(path) - 1 for path in paths]
            np.testing.assert_allclose(
                places[k, v, [0, 1, 2, 4]],
                [max(lengths) / 8, min(lengths) / 8, np.log1p(len(paths)) / 4, np.log1p(graph.in_degree(v))],
                atol=1e-5,
            )
            paths = list(nx.all_simple_paths(graph, v, last)) if v != last else [[last]]
            lengths = [len(path) - 1 for path in paths]
            np.testing.assert_allclose(
                places[k, v, [5, 6, 7, 9]],
                [max(lengths) / 8, min(lengths) / 8, np.log1p(len(paths)) / 4, np.log1p(graph.out_degree(v))],
                atol=1e-5,
            )
        assert places[k, last, 3] == pytest.approx(1, abs=1e-5)  # every walk ends in the output
        assert places[k, 0, 8] == pytest.approx(1, abs=1e-5)
        assert not places[k, cell.size :].any()


def test_decoding_order_does_not_depend_on_the_numbering() -> None:
    rng = np.random.default_rng(3)
    graphs = sample_dags(80, ("a", "b", "c"), rng, max_nodes=8)
    others = GraphBatch.from_graphs([renumbered(graphs.graph(k), rng) for k in range(80)], graphs.vocabulary)
    rows = np.arange(80)[:, None, None]
    read = []
    for batch in (graphs, others):
        inputs = NodeInputs.of(batch)
        order = decoding_order(inputs)
        edges = inputs.adjacency[rows, order[:, :, None], order[:, None, :]]
        read.append((np.take_along_axis(inputs.labels, order, axis=1), edges))
        assert not np.tril(edges).any()
    np.testing.assert_array_equal(read[0][0], read[1][0])
    assert (read[0][1] == read[1][1]).all(axis=(1, 2)).mean() > 0.9  # ties are broken by the numbering


def test_shuffling_keeps_edges_and_histogram() -> None:
    graphs = sample_dags(50, ("a", "b", "c"), np.random.default_rng(4), max_nodes=12)
    other = shuffled(graphs, np.random.default_rng(0))
    np.testing.assert_array_equal(other.successors, graphs.successors)
    np.testing.assert_array_equal(np.sort(other.ops, axis=1), np.sort(graphs.ops, axis=1))
    np.testing.assert_array_equal(other.ops[:, 0], graphs.ops[:, 0])
    assert (other.ops != graphs.ops).any()


def test_second_load_does_not_train(tmp_path) -> None:
    config = replace(QUICK, steps=2)
    calls: list[int] = []

    def progress(step: int, steps: int, loss: float) -> None:
        calls.append(step)

    first = load_or_train(NASBench201(), config, tmp_path, progress)
    assert calls == [1, 2]
    second = load_or_train(NASBench201(), config, tmp_path, progress)
    assert calls == [1, 2]
    graphs = NASBench201().sample(30, np.random.default_rng(0)).graphs
    np.testing.assert_array_equal(first.embed(graphs), second.embed(graphs))
    assert second.report == first.report
    assert {path.suffix for path in (tmp_path / "encoders").iterdir()} == {".safetensors"}


def test_a_damaged_cache_is_filled_again(tmp_path) -> None:
    config = replace(QUICK, steps=1)
    expected = load_or_train(NASBench201(), config, tmp_path)
    (path,) = (tmp_path / "encoders").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    graphs = NASBench201().sample(5, np.random.default_rng(0)).graphs
    again = load_or_train(NASBench201(), config, tmp_path)
    np.testing.assert_allclose(again.embed(graphs), expected.embed(graphs), atol=1e-5)
    assert path.stat().st_size > 1000


def test_cache_folder_comes_from_the_environment(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GEMNET_CACHE", str(tmp_path / "here"))
    load_or_train(NASBench201(), replace(QUICK, steps=0))
    assert list((tmp_path / "here" / "encoders").glob("nasbench201-*.safetensors"))


def test_a_cache_that_can_not_be_written_to_is_said_before_training(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GEMNET_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(cache_module, "train_encoder", lambda *_: pytest.fail("trained"))
    with pytest.raises(CacheError, match="Set GEMNET_CACHE to a folder"):
        load_or_train(NASBench201(), QUICK)


def test_the_cache_is_a_users_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GEMNET_CACHE", "~/here")
    assert cache_root() == tmp_path / "here"
    monkeypatch.delenv("GEMNET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "gemnet"


def test_key_changes_with_space_and_config() -> None:
    keys = {
        encoder_key(NASBench201(), QUICK),
        encoder_key(NASBench101(), QUICK),
        encoder_key(NASBench201(), replace(QUICK, steps=1)),
        encoder_key(GEMNetSpace(max_nodes=30), QUICK),
        encoder_key(GEMNetSpace(max_nodes=5), QUICK),
    }
    assert len(keys) == 5
    assert encoder_key(NASBench201(), QUICK) in keys


def test_key_does_not_change_with_what_the_encoder_never_sees() -> None:
    plain = encoder_key(GEMNetSpace(), QUICK)
    assert encoder_key(GEMNetSpace(choices={"width": [1.0]}, form="imagenet", input_size=64), QUICK) == plain
    assert encoder_key(GEMNetSpace(layouts={"x": {"stem_width": 8}, "y": {"stem_width": 16}}), QUICK) == plain


def test_key_changes_with_the_version(monkeypatch) -> None:
    before = encoder_key(NASBench201(), QUICK)
    monkeypatch.setattr(cache, "ENCODER_VERSION", cache.ENCODER_VERSION + 1)
    assert encoder_key(NASBench201(), QUICK) != before


def test_the_default_search_finds_its_encoder_in_the_package(tmp_path) -> None:
    config = load_config(find_config("default"))
    space = GEMNetSpace(**config.space.options)
    encoder = load_or_train(space, EncoderConfig(), tmp_path, lambda *_: pytest.fail("trained"))
    assert not list(tmp_path.iterdir())
    graphs = space.sample(200, np.random.default_rng(5)).graphs
    guide = make_guide("graded_wl", identity_ops=space.identity_ops)
    pairs = np.triu_indices(200, 1)
    vectors = encoder.embed(graphs)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.corrcoef((unit @ unit.T)[pairs], guide.gram(guide.features(graphs))[pairs])[0, 1] > 0.9


def test_packaged_encoder_serves_its_space_and_no_other(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cache, "PACKAGED", tmp_path / "trained")
    config = replace(QUICK, steps=1)
    path = cache.package_encoder(NASBench201(), config)
    graphs = NASBench201().sample(5, np.random.default_rng(0)).graphs
    found = load_or_train(NASBench201(), config, tmp_path, lambda *_: pytest.fail("trained"))
    assert found.embed(graphs).shape == (5, 32)
    calls: list[int] = []
    load_or_train(NASBench201(), replace(config, seed=1), tmp_path, lambda step, *_: calls.append(step))
    assert calls == [1]
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(GemnetError, match="Install the package again"):
        load_or_train(NASBench201(), config, tmp_path)


def test_a_new_version_replaces_the_packaged_encoders(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cache, "PACKAGED", tmp_path)
    config = replace(QUICK, steps=0)
    old = cache.package_encoder(NASBench201(), config)
    monkeypatch.setattr(cache, "ENCODER_VERSION", cache.ENCODER_VERSION + 1)
    new = cache.package_encoder(NASBench101(), config)
    assert {path.name for path in tmp_path.iterdir()} == {new.name, "index.json"}
    assert new.name != old.name


def test_another_vocabulary_is_refused(encoder: Encoder) -> None:
    with pytest.raises(EncoderError, match="conv3x3-bn-relu"):
        encoder.embed(NASBench201().sample(2, np.random.default_rng(0)).graphs)


@pytest.mark.parametrize("change", [{"steps": -1}, {"hidden": 0}, {"batch_size": 3}, {"guide_weight": -0.1}])
def test_senseless_settings_are_named(change: dict) -> None:
    with pytest.raises(EncoderError, match=next(iter(change))):
        EncoderConfig(**change)


def test_untrained_networks_are_always_the_same_and_do_not_disturb_the_trained_vectors(encoder: Encoder) -> None:
    space = NASBench101()
    graphs = space.sample(300, np.random.default_rng(1)).graphs
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    networks = UntrainedNetworks(len(space.vocabulary), 2)
    assert torch.equal(torch.random.get_rng_state(), before)
    vectors, found = encoder.embed_beside(networks, graphs)
    np.testing.assert_array_equal(vectors, encoder.embed(graphs))
    assert found.shape == (300, 2 * 136)
    assert found.dtype == np.float32
    torch.manual_seed(6)
    again = UntrainedNetworks(len(space.vocabulary), 3)
    np.testing.assert_array_equal(encoder.embed_beside(again, graphs)[1][:, : 2 * 136], found)
    # Each sees something else, and renumbered graphs are the same to them.
    one, other = (np.corrcoef(each) for each in np.split(found, 2, axis=1))
    assert np.abs(one - other).max() > 0.01
    rng = np.random.default_rng(0)
    others = GraphBatch.from_graphs([renumbered(graphs.graph(k), rng) for k in range(300)], space.vocabulary)
    np.testing.assert_allclose(encoder.embed_beside(networks, others)[1], found, atol=1e-4)


def test_every_parameter_of_the_network_learns() -> None:
    torch.manual_seed(0)
    network = GraphNetwork(3, hidden=8, rounds=2, dimension=4)
    graphs = sample_dags(20, ("a", "b", "c"), np.random.default_rng(0), max_nodes=6)
    network(*as_tensors(NodeInputs.of(graphs))).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name

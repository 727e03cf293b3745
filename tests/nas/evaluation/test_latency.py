"""Latencies: prices fitted to measurements, a limit that is kept, and what can go wrong with it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from gemnet.cell_graph import CellGraph
from gemnet.genome import Genome
from gemnet.macs import cost
from gemnet.runtimes.latency import Runtime, Timings
from gemnet.strict import ConfigError
from gemnet.templates import template
from nas.evaluation import latency as latency_module
from nas.evaluation.latency import (
    LatencyError,
    LatencyModel,
    LatencyOptions,
    count_genomes,
    device_name,
    fit,
    fit_to_space,
    measure,
)
from nas.evaluation.records import Fidelity
from nas.spaces.gemnet import GEMNetSpace
from nas.spaces.limits import Limits, LimitsError, admits, check_limits
from nas.strategies import make_strategy

PRICES = np.array([2e-8, 3e-8, 0.02, 0.3])
DW = CellGraph(("dw3x3_bn_act",), frozenset({(0, 1), (1, 2)}))


def true_latency(costs: np.ndarray) -> np.ndarray:
    return costs[:, [0, 2, 3]] @ PRICES[:3] + PRICES[3]


@pytest.fixture(scope="module")
def costs() -> np.ndarray:
    space = GEMNetSpace()
    return space.costs(space.sample(64, np.random.default_rng(1)))


def test_prices_that_made_the_latencies_are_found_again(costs) -> None:
    model = fit(costs, true_latency(costs), "here")
    np.testing.assert_allclose(model.prices, PRICES, rtol=1e-6)
    np.testing.assert_allclose(model(costs), true_latency(costs))
    assert model.error < model.error_90 < 1e-6
    assert (model.networks, model.device) == (64, "here")


def test_the_error_is_that_on_networks_the_prices_were_not_fitted_to(costs) -> None:
    noise = np.exp(np.random.default_rng(0).normal(0, 0.2, len(costs)))
    model = fit(costs, true_latency(costs) * noise, "here")
    assert 0.08 < model.error < 0.2 < model.error_90 < 0.5
    assert min(model.prices) >= 0
    np.testing.assert_allclose(model(costs), true_latency(costs), rtol=0.25)


@pytest.mark.parametrize("noise", [0.1, 0.2, 0.3])
def test_estimates_are_too_low_as_often_as_too_high(costs, noise: float) -> None:
    shares = []
    for seed in range(40):
        measured = true_latency(costs) * np.exp(np.random.default_rng(seed).normal(0, noise, len(costs)))
        shares.append(np.median(fit(costs, measured, "here")(costs) / true_latency(costs)))
    assert np.mean(shares) == pytest.approx(1, abs=0.02)


def test_too_few_networks_are_refused(costs) -> None:
    with pytest.raises(LatencyError, match="at least 16"):
        fit(costs[:15], true_latency(costs[:15]), "here")
    with pytest.raises(ConfigError, match="networks is at least 32, got 5"):
        LatencyOptions(networks=5)


def test_a_model_is_read_as_it_was_written(costs, tmp_path) -> None:
    model = fit(costs, true_latency(costs), "here")
    model.save(tmp_path / "latency.json")
    assert LatencyModel.load(tmp_path / "latency.json") == model


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "prices": [1]}'])
def test_prices_that_cannot_be_read_say_what_to_do(tmp_path, text: str) -> None:
    (tmp_path / "latency.json").write_text(text)
    with pytest.raises(LatencyError, match="delete it to have them measured again"):
        LatencyModel.load(tmp_path / "latency.json")


def test_a_price_too_few_is_noticed(costs, tmp_path) -> None:
    fit(costs, true_latency(costs), "here").save(tmp_path / "latency.json")
    data = json.loads((tmp_path / "latency.json").read_text())
    (tmp_path / "latency.json").write_text(json.dumps({**data, "prices": data["prices"][:3]}))
    with pytest.raises(LatencyError, match="delete it to have them measured again"):
        LatencyModel.load(tmp_path / "latency.json")


def test_prices_are_of_one_device(costs) -> None:
    options = LatencyOptions()
    model = fit(costs, true_latency(costs), device_name(options))
    assert model.is_of(options)
    assert not model.is_of(replace(options, threads=options.threads + 1))
    assert not model.is_of(replace(options, device="cuda:99"))


def test_no_room_for_so_many_images_is_said(monkeypatch) -> None:
    def full(*arguments):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    monkeypatch.setattr(Runtime, "call", lambda self, model, shape: full)
    with pytest.raises(LatencyError, match=r"Lower the batch.*batch_size=2, 32x32 images"):
        measure([template("cifar", "a").genome(DW)], LatencyOptions(batch_size=2), side=32)


def test_a_hundred_times_the_work_takes_longer() -> None:
    small, large = template("cifar", "a").genome(DW, width=0.25), template("imagenet", "c").genome(DW, width=2.0)
    assert cost(large).macs > 100 * cost(small).macs
    quick, slow = measure([small, large.replace(num_classes=10)], LatencyOptions(), side=64)
    assert 0 < quick < slow


def test_a_batch_counts_for_an_image_and_turns_that_were_disturbed_count_for_nothing(monkeypatch) -> None:
    turns = np.array([[32.0] * 4 + [90.0] * 16])
    for threads, timings in ((1, Timings(10 * turns, turns)), (2, Timings(turns, 10 * turns))):
        monkeypatch.setattr(latency_module, "in_turns", lambda *arguments, timings=timings: timings)
        options = LatencyOptions(batch_size=16, threads=threads)
        assert measure([template("cifar", "a").genome(DW, width=0.25)], options, side=32) == [2.0]


def test_onnxruntime_measures_where_it_is_installed_and_torch_on_a_gpu(monkeypatch) -> None:
    pytest.importorskip("onnxruntime", reason="pip install 'gemnet[export]'")
    assert device_name(LatencyOptions()).startswith("onnxruntime ")
    assert LatencyOptions(device="cuda").used.backend == "torch"
    assert device_name(LatencyOptions(runtime="torch")).startswith("torch ")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert device_name(LatencyOptions()).startswith("torch ")
    with pytest.raises(LatencyError, match="There is no backend 'tensorrt'"):
        measure([template("cifar", "a").genome(DW)], LatencyOptions(runtime="tensorrt"), side=32)


@pytest.mark.parametrize("device", ["cudaa", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(LatencyError, match=f"latency: device is '{device}'"):
        measure([template("cifar", "a").genome(DW)], LatencyOptions(device=device), side=32)


@pytest.fixture(scope="module")
def genomes() -> list[Genome]:
    space = GEMNetSpace()
    drawn = space.sample(48, np.random.default_rng(2))
    return [space.genome(space.unpack(drawn, row)) for row in range(48)]


def test_kinds_of_layers_are_priced_where_that_estimates_better(genomes, tmp_path) -> None:
    counts, costs = count_genomes(genomes), np.array([cost(genome) for genome in genomes])
    prices = np.array([1e-8, 2e-8, 3e-8, 5e-7, 1e-7, 2e-7, 5e-7, 3e-8, 2e-7, 4e-7, 3e-7, 0.01, 2e-7, 2e-7, 0.001, 0.05])
    by_kinds = counts @ prices
    model = fit(costs, by_kinds, "here", counts)
    assert model.error_90 < 0.05 < model.pool_error_90
    assert model.of(genomes[0]) == pytest.approx(by_kinds[0], rel=0.05)
    model.save(tmp_path / "latency.json")
    assert LatencyModel.load(tmp_path / "latency.json") == model

    by_sums = true_latency(costs)
    model = fit(costs, by_sums, "here", counts)
    assert (model.kinds, model.pool_error_90) == ((), None)
    assert model.of(genomes[0]) == pytest.approx(by_sums[0])


def test_prices_written_before_kinds_were_counted_are_read(costs, tmp_path) -> None:
    model = fit(costs, true_latency(costs), "here")
    model.save(tmp_path / "latency.json")
    data = json.loads((tmp_path / "latency.json").read_text())
    del data["kinds"], data["pool_error_90"]
    (tmp_path / "latency.json").write_text(json.dumps(data))
    assert LatencyModel.load(tmp_path / "latency.json") == model


def test_of_prices_of_kinds_that_are_counted_no_more_those_of_sums_are_left(genomes, tmp_path) -> None:
    counts, costs = count_genomes(genomes), np.array([cost(genome) for genome in genomes])
    model = fit(costs, counts @ np.geomspace(1e-8, 1e-3, counts.shape[1]), "here", counts)
    model.save(tmp_path / "latency.json")
    data = json.loads((tmp_path / "latency.json").read_text())
    data["kinds"] = data["kinds"][:-2]
    (tmp_path / "latency.json").write_text(json.dumps(data))
    read = LatencyModel.load(tmp_path / "latency.json")
    assert (read.kinds, read.prices, read.error_90) == ((), model.prices, model.pool_error_90)


def test_what_is_proposed_keeps_the_limit_as_estimated_by_itself() -> None:
    space = GEMNetSpace(choices={"width": [1.0]})
    space.latency_model = lambda costs: np.ones(len(costs))  # among thousands all seem fast enough
    space.latency_of = lambda genome: 1.0 + genome.activation.count("hswish")
    strategy = make_strategy("random", space, 0, fidelity=Fidelity(1), limits=Limits(max_latency=1.5))
    proposals = strategy.ask(12)
    assert len(proposals) == 12
    assert {dict(each.candidate.macro)["activation"] for each in proposals} == {"relu"}


def test_half_of_the_networks_measured_are_random_and_half_lie_near_the_limit(monkeypatch) -> None:
    space, measured = GEMNetSpace(), []

    def timed(genomes, options, side, in_chans=3):
        found = [float(true_latency(np.array([cost(genome, side, in_chans=in_chans)]))[0]) for genome in genomes]
        measured.extend(found)
        return found

    monkeypatch.setattr(latency_module, "measure", timed)
    told: list[float] = []
    model = fit_to_space(space, Limits(max_latency=3.0), LatencyOptions(networks=48), told.append)
    assert told == measured
    assert len(measured) == model.networks == 48
    assert np.std(measured[:24]) > 1
    # Identities are counted as nodes that run; so a few networks are faster than estimated.
    assert np.quantile(np.abs(np.array(measured[24:]) / 3.0 - 1), 0.8) < 0.06
    sample = space.sample(150, np.random.default_rng(3))
    estimated, true = model(space.costs(sample)), []
    for row in range(len(sample)):
        true.append(true_latency(np.array([cost(space.genome(space.unpack(sample, row)))]))[0])
    assert np.median(np.abs(estimated / np.array(true) - 1)) < 0.05


def test_what_is_slower_than_the_limit_is_never_proposed() -> None:
    space, limits = GEMNetSpace(), Limits(max_latency=4.0)
    with pytest.raises(LimitsError, match=r"max_latency=4.*'gemnet'"):
        check_limits(space, limits)
    space.latency_model = true_latency
    check_limits(space, limits)
    strategy = make_strategy("random", space, 0, fidelity=Fidelity(1), limits=limits)
    batch = space.pack([proposal.candidate for proposal in strategy.ask(40)])
    assert true_latency(space.costs(batch)).max() <= 4.0
    assert admits(space, limits, batch).all()
    drawn = space.sample(200, np.random.default_rng(0))
    assert 0 < admits(space, limits, drawn).sum() < 200


def test_a_limit_below_every_candidate_says_how_near_one_comes() -> None:
    space = GEMNetSpace()
    space.latency_model = true_latency
    with pytest.raises(
        LimitsError, match=r"max_latency = 0\.1 ms: the one that comes nearest has an estimated latency"
    ):
        check_limits(space, Limits(max_latency=0.1))


def test_the_model_is_plain_json(costs, tmp_path) -> None:
    fit(costs, true_latency(costs), "here").save(tmp_path / "latency.json")
    data = json.loads((tmp_path / "latency.json").read_text())
    assert data["format"] == 2
    assert len(data["prices"]) == 4

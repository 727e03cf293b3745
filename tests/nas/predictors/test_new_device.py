"""Costs on a device from few measurements and other devices."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kendalltau

from nas.predictors.features import PredictorError
from nas.predictors.nasgem_features import drawn_table, reached_table
from nas.predictors.new_device import NewDevice
from nas.spaces.base import CandidateBatch
from nas.spaces.choices import ChoiceSpace
from nas.spaces.nasbench201 import NASBench201

CELLS = NASBench201()
BATCH = CELLS.sample(600, np.random.default_rng(0))
PRICES = np.array([[0.0, 0.5, 1.0, 3.0, 1.5], [0.0, 0.2, 2.0, 4.0, 1.0], [0.1, 1.0, 1.0, 2.0, 2.0]])


def costs_of(batch: CandidateBatch, prices: NDArray[np.float64], read: bool) -> NDArray[np.float64]:
    counts = reached_table(CELLS.zero_ops, batch) if read else drawn_table(batch)
    return 2 + counts.values.astype(np.float64) @ prices


def tau(estimated: NDArray[np.float64], costs: NDArray[np.float64]) -> float:
    return float(kendalltau(estimated, costs).statistic)


@pytest.mark.parametrize("read", [True, False])
def test_ten_measurements_tell_what_a_device_runs_and_its_prices(read: bool) -> None:
    known = [costs_of(BATCH, prices, read=k > 0) for k, prices in enumerate(PRICES[1:])]
    costs = costs_of(BATCH, PRICES[0], read)
    device = NewDevice(CELLS, BATCH, known)
    rows = device.choose(10, np.random.default_rng(0))
    estimated = device.estimate(rows, costs[rows])
    assert tau(estimated, costs) > 0.95
    assert abs(estimated - costs).mean() < 0.2 * costs.std()


def test_what_is_measured_counts_in_any_unit() -> None:
    known = [costs_of(BATCH, prices, True) for prices in PRICES[1:]]
    costs, rows = costs_of(BATCH, PRICES[0], True), np.arange(12)
    in_ms = NewDevice(CELLS, BATCH, known).estimate(rows, costs[rows])
    in_s = NewDevice(CELLS, BATCH, [1000 * each for each in known]).estimate(rows, costs[rows] / 1000)
    np.testing.assert_allclose(in_s, in_ms / 1000, rtol=1e-6)


def test_prices_of_other_devices_help_where_there_are_more_choices_than_measurements() -> None:
    rng = np.random.default_rng(1)
    space = ChoiceSpace({f"layer{k}": ("a", "b", "c") for k in range(6)})
    batch = space.all()
    prices = rng.exponential(size=(6, 3))
    of_a_kind = [
        (prices * rng.uniform(0.8, 1.2, size=(6, 3)))[np.arange(6), batch.macro.astype(int)].sum(axis=1)
        for _ in range(4)
    ]
    unlike = [rng.permutation(each) for each in of_a_kind[1:]]
    helped, alone = (
        np.mean(
            [
                tau(NewDevice(space, batch, known).estimate(rows, of_a_kind[0][rows]), of_a_kind[0])
                for rows in (np.random.default_rng(seed).choice(len(batch), 6, replace=False) for seed in range(5))
            ]
        )
        for known in (of_a_kind[1:], unlike)
    )
    assert helped > 0.8
    assert alone < helped - 0.2


def test_chosen_rows_tell_more_than_drawn_ones() -> None:
    known = [costs_of(BATCH, prices, True) for prices in PRICES[1:]]
    costs = costs_of(BATCH, PRICES[0], True) * np.random.default_rng(3).normal(1, 0.05, len(BATCH))
    device = NewDevice(CELLS, BATCH, known)
    chosen, drawn = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        for rows, taus in ((device.choose(5, rng), chosen), (rng.choice(len(BATCH), 5, replace=False), drawn)):
            assert len(set(rows.tolist())) == 5
            taus.append(tau(device.estimate(rows, costs[rows]), costs))
    assert np.mean(chosen) > np.mean(drawn)


def test_rows_are_chosen_among_those_that_can_be_measured_and_gaps_of_known_devices_do_not_matter() -> None:
    known = [costs_of(BATCH, prices, True) for prices in PRICES[1:]]
    known[0][::3] = np.nan
    device = NewDevice(CELLS, BATCH, known)
    among = np.arange(100, 130)
    rows = device.choose(20, np.random.default_rng(0), among)
    assert set(rows.tolist()) <= set(among.tolist())
    costs = costs_of(BATCH, PRICES[0], True)
    assert tau(device.estimate(rows, costs[rows]), costs) > 0.9
    assert device.estimate(rows, np.full(20, 3.0)).tolist() == [3.0] * len(BATCH)


def test_what_nothing_can_be_learnt_from_is_refused() -> None:
    costs = costs_of(BATCH, PRICES[0], True)
    for known in ([], [costs[:5]], [np.full(len(BATCH), 2.0)], [np.full(len(BATCH), np.nan)]):
        with pytest.raises(PredictorError, match="known"):
            NewDevice(CELLS, BATCH, known)
    device = NewDevice(CELLS, BATCH, [costs])
    with pytest.raises(PredictorError, match="no 7 can be chosen"):
        device.choose(7, np.random.default_rng(0), np.arange(6))
    for rows, measured in (([0], [1.0]), ([0, 1], [1.0]), ([0, 1], [1.0, np.nan])):
        with pytest.raises(PredictorError, match="finite costs"):
            device.estimate(np.array(rows), np.array(measured))

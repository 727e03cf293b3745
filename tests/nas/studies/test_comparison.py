"""Comparisons: equal treatment, fitted peers, true controls, nothing lost or done twice, test images kept shut."""

import csv
import importlib
import json
import math
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from torch import nn

import gemnet
from gemnet.cell_graph import CellGraph
from gemnet.classics import mobilenetv2, nasbench201
from gemnet.data import datasets
from gemnet.macs import macs
from gemnet.models import genome_for
from gemnet.sources import (
    GenomeSource,
    Images,
    NetworkError,
    PythonSource,
    TimmSource,
    build,
    count_macs,
    counted_macs,
    describe,
)
from gemnet.strict import ConfigError
from gemnet.templates import template
from gemnet.training.loop import TrainingFailed
from gemnet.training.state import TrainingState
from gemnet.training.teacher import TeacherError
from nas.commands import compare
from nas.executors.monitor import Monitor
from nas.search.config import find_config
from nas.spaces.gemnet import GEMNetSpace
from nas.studies.comparison import run as run_module
from nas.studies.comparison import trainings as trainings_module
from nas.studies.comparison.config import load_comparison, read_comparison
from nas.studies.comparison.controls import ControlError, random_cells, rewire, rewired_cells
from nas.studies.comparison.networks import networks_compared
from nas.studies.comparison.peers import BEST_NASBENCH201_CELL, MobileNetSource, PeerError, Target, mobilenet, smallest
from nas.studies.comparison.picture import draw_comparison
from nas.studies.comparison.report import as_csv, lines, markdown
from nas.studies.comparison.run import (
    Comparison,
    ComparisonFolder,
    Contender,
    choose,
    comparison_so_far,
    make_trainer,
    run_comparison,
    short_runs,
)
from nas.studies.comparison.trainings import ComparisonError, Job, Trainings, make_row, row_key
from nas.studies.csv_log import CsvLogError

REPOSITORY = Path(__file__).resolve().parents[3]
DIGITS = Images(8, 1, 10)
CIFAR = Images(32, 3, 10)
CELL = CellGraph(
    ("dw3x3_bn_act", "dw5x5_bn_act", "conv1x1_bn_act", "identity", "max_pool_3x3"),
    frozenset({(0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (1, 5), (4, 6), (5, 6)}),
)


@pytest.fixture(scope="module")
def genome_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("genome") / "small.json"
    template("cifar", "a").genome(CELL, width=0.5, inner_ratio=2).save(file)
    return str(file)


def config(genome_file, **changes):
    data = {
        "data": {"source": "digits", "dev_fraction": 0.5},
        "recipe": {"batch_size": 64, "flip": False},
        "epochs": 1,
        "seeds": [0, 1],
        "lrs": [0.05, 0.2],
        "choice": {"epochs": 1, "subset": 0.3},
        "reference": "small",
        "networks": [{"type": "gemnet", "genome": genome_file}, {"type": "nasbench201", "cells": 1}],
        "workers": {"count": 0},
    }
    return read_comparison({**data, **changes})


@pytest.fixture(scope="module")
def settings(genome_file):
    return config(genome_file)


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory):
    path = tmp_path_factory.mktemp("comparison") / "work"
    return compared(settings, path), path


def compared(settings, path, final=False) -> Comparison:
    with ComparisonFolder(path) as folder:
        return run_comparison(settings, folder, final, Monitor())


class TestMacs:
    @pytest.mark.parametrize("genome", [genome_for("gemnet_a_cifar"), nasbench201(BEST_NASBENCH201_CELL, 4, 1)])
    def test_of_built_network_are_those_of_its_genome(self, genome):
        source = GenomeSource(genome)
        network = describe("it", source, CIFAR)
        deployed = gemnet.deploy(build(source, CIFAR, 0))
        assert network.macs == macs(genome, 32, 10) == counted_macs(deployed, CIFAR)
        assert network.fingerprint == genome.fingerprint

    def test_of_timm_network_are_the_published_ones(self):
        images = Images(224, 3, 1000)
        assert count_macs(TimmSource("mobilenetv2_100"), images) == macs(mobilenetv2()) == 300_774_272
        assert count_macs(TimmSource("resnet18"), images) == 1_814_073_344

    def test_products_of_activations_are_not_counted(self):
        class Attention(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed = nn.Conv2d(1, 10, 2, 2)

            def forward(self, x):
                x = self.embed(x).flatten(2)
                return (x @ x.transpose(1, 2) @ x).mean(2)

        assert counted_macs(Attention(), DIGITS) == 16 * 4 * 10


class TestPeers:
    @pytest.mark.parametrize("family", ["mobilenetv2", "mobilenetv3_small"])
    def test_has_at_least_the_macs_and_would_not_at_the_next_smaller_width(self, family):
        source = mobilenet(family, CIFAR, Target(6e6))
        assert isinstance(source, MobileNetSource)
        narrower = replace(source, width=source.width - 1 / 64)
        assert count_macs(narrower, CIFAR) < 6e6 <= count_macs(source, CIFAR)

    @pytest.mark.parametrize(
        ("family", "name"), [("mobilenetv2", "mobilenetv2_100"), ("mobilenetv3_small", "mobilenetv3_small_100")]
    )
    def test_is_timms_own_network_where_width_and_strides_are(self, family, name):
        ours = build(MobileNetSource(family, 1.0, reduction=32), CIFAR, 0)
        theirs = timm.create_model(name, num_classes=10)
        assert {k: v.shape for k, v in ours.state_dict().items()} == {
            k: v.shape for k, v in theirs.state_dict().items()
        }
        ours.load_state_dict(theirs.state_dict())
        images = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))

    @pytest.mark.parametrize("reduction", [4, 8, 16])
    @pytest.mark.parametrize("family", ["mobilenetv2", "mobilenetv3_small"])
    def test_small_form_leaves_out_the_first_strides(self, family, reduction):
        model = build(MobileNetSource(family, 0.25, reduction), CIFAR, 0)
        with torch.no_grad():
            assert model.eval().forward_features(torch.zeros(1, 3, 32, 32)).shape[2] == 32 // reduction
        assert model.conv_stem.stride == (1, 1)

    def test_out_of_reach(self):
        with pytest.raises(PeerError, match="mobilenetv2 does not reach"):
            smallest(lambda scale: MobileNetSource("mobilenetv2", 0.1), CIFAR, Target(1e12), "mobilenetv2")

    def test_best_cell_is_the_tables(self):
        folder = datasets.data_root() / "nasbench"
        if not (folder / "nb201.parquet").is_file():
            pytest.skip("needs the NAS-Bench-201 table: set GEMNET_DATA to the folder with nasbench/nb201.parquet")
        import pandas as pd

        table = pd.read_parquet(folder / "nb201.parquet")
        assert table.loc[table["c10_test_200ep_mean"].idxmax(), "arch_str"] == BEST_NASBENCH201_CELL


class TestControls:
    def test_rewired_graph_has_same_operations_and_edges_and_no_dead_nodes(self):
        rng = np.random.default_rng(0)
        hashes = set()
        for _ in range(200):
            other = rewire(CELL, rng)
            assert Counter(other.ops) == Counter(CELL.ops)
            assert len(other.edges) == len(CELL.edges)
            assert other.is_connected
            assert not other.dead_nodes()
            hashes.add(other.canonical_hash())
        assert len(hashes) > 150  # far from where it began, not one edit away

    def test_rewired_wirings_are_equally_likely(self):
        cell = CellGraph(("identity",) * 2, frozenset({(0, 1), (1, 2), (2, 3), (0, 3)}))
        rng = np.random.default_rng(0)
        counts = Counter(rewire(cell, rng).edges for _ in range(1500))
        # All with four edges: 1 and 2 each read and are read.
        assert len(counts) == 4
        assert min(counts.values()) > 300

    def test_chain_can_only_be_reordered(self):
        chain = CellGraph(("dw3x3_bn_act", "identity"), frozenset({(0, 1), (1, 2), (2, 3)}))
        rng = np.random.default_rng(0)
        assert {rewire(chain, rng).edges for _ in range(20)} == {chain.edges}

    def test_rewired_networks_differ_and_cost_the_same(self):
        genome = template("cifar", "a").genome(CELL)
        others = rewired_cells(genome, CIFAR, 5, 0)
        assert len({genome.fingerprint, *(other.fingerprint for other in others)}) == 6
        for other in others:
            assert macs(other, 32, 10) == pytest.approx(macs(genome, 32, 10), rel=0.02)
        assert others == rewired_cells(genome, CIFAR, 5, 0)
        assert others != rewired_cells(genome, CIFAR, 5, 1)

    def test_cell_of_one_node_has_no_rewirings(self):
        single = CellGraph(("dw3x3_bn_act",), frozenset({(0, 1), (1, 2)}))
        with pytest.raises(ControlError, match="too few nodes"):
            rewired_cells(template("cifar", "a").genome(single), CIFAR, 2, 0)

    @pytest.mark.slow
    def test_random_cells_cost_what_the_reference_costs(self):
        space = GEMNetSpace(form="cifar", size="a")
        found = random_cells(space, 6e6, 8, 0)
        assert len({genome.fingerprint for genome in found}) == 8
        assert all(macs(genome, 32, 10) == pytest.approx(6e6, rel=0.02) for genome in found)
        with pytest.raises(ControlError, match=r"Only 0 of .* random cells"):
            random_cells(space, 1e3, 1, 0)


class TestComparison:
    def test_all_are_treated_alike(self, finished):
        comparison, path = finished
        with (path / "trainings.csv").open() as file:
            rows = list(csv.DictReader(file))
        for name in ("small", "nasbench201"):
            own = [row for row in rows if row["network"] == name]
            runs = sorted((row["phase"], row["lr"], row["seed"], row["epochs"]) for row in own)
            chosen = max((row for row in own if row["phase"] == "choice"), key=lambda row: float(row["accuracy"]))["lr"]
            assert runs == [
                ("choice", "0.05", "1000", "1"),
                ("choice", "0.2", "1000", "1"),
                ("training", chosen, "0", "1"),
                ("training", chosen, "1", "1"),
            ]
        reference, peer = comparison.contenders
        assert reference.network.name == "small"
        assert peer.network.macs >= reference.network.macs
        assert set(reference.accuracies) == set(peer.accuracies) == {0, 1}

    def test_test_images_stay_shut_without_final(self, settings, tmp_path, finished, monkeypatch):
        opened = []
        original = datasets._load
        monkeypatch.setattr(datasets, "_load", lambda spec, split: opened.append(split) or original(spec, split))
        compared(replace(settings, lrs=(0.1,), seeds=(0,)), tmp_path / "w")
        assert set(opened) == {"train"}
        assert not (finished[1] / "test_openings.jsonl").exists()

    def test_interrupted_comparison_goes_on_and_ends_like_an_uninterrupted_one(
        self, settings, finished, tmp_path, monkeypatch
    ):
        whole, _ = finished
        add = Trainings.add
        for rows in (1, 4):  # in the middle of the short runs, and of the trainings

            def interrupted(table, row, rows=rows):
                if len(table.rows) == rows:
                    raise KeyboardInterrupt
                add(table, row)

            monkeypatch.setattr(Trainings, "add", interrupted)
            with pytest.raises(KeyboardInterrupt):
                compared(settings, tmp_path / "w")
            monkeypatch.undo()
            with (tmp_path / "w/trainings.csv").open("a") as file:
                file.write("small,,choice,0.0")  # what kill -9 in the middle of a line leaves
        trained = []
        train = run_module.ComparisonTrainer.train
        monkeypatch.setattr(
            run_module.ComparisonTrainer,
            "train",
            lambda self, job, *rest: trained.append(job) or train(self, job, *rest),
        )
        assert compared(settings, tmp_path / "w") == whole
        assert len(trained) == 8 - 4
        assert compared(settings, tmp_path / "w") == whole
        assert len(trained) == 8 - 4

    def test_a_training_that_was_ended_in_the_middle_goes_on_in_a_copy_of_the_folder(
        self, genome_file, tmp_path, monkeypatch
    ):
        networks = [{"type": "gemnet", "genome": genome_file}]
        settings = config(genome_file, epochs=3, seeds=[0], lrs=[0.1], networks=networks)
        whole = compared(settings, tmp_path / "whole")
        save, epochs = TrainingState.save, []

        def ended(state, *arguments):
            save(state, *arguments)
            epochs.append(len(state.history))
            if epochs == [1, 2]:
                raise KeyboardInterrupt

        monkeypatch.setattr(TrainingState, "save", ended)
        with pytest.raises(KeyboardInterrupt):
            compared(settings, tmp_path / "w")
        assert list((tmp_path / "w/weights").glob("*.unfinished.pth"))
        shutil.copytree(tmp_path / "w", tmp_path / "copy")
        assert compared(settings, tmp_path / "copy") == whole
        assert epochs == [1, 2, 3]
        assert not list((tmp_path / "copy/weights").glob("*.unfinished.pth"))
        for name in ("*.safetensors", "*.csv"):
            (left,), (right,) = ((tmp_path / folder / "weights").glob(name) for folder in ("whole", "copy"))
            assert left.read_bytes() == right.read_bytes()

    def test_a_teacher_that_is_not_there_is_said_before_anything_is_trained(self, genome_file, tmp_path):
        settings = config(genome_file, recipe={"batch_size": 64, "flip": False, "teacher": "gemnet_q"})
        with pytest.raises(TeacherError, match="no teacher 'gemnet_q'"):
            compared(settings, tmp_path / "w")
        assert not (tmp_path / "w/trainings.csv").exists()

    def test_other_settings_are_other_trainings_in_the_same_folder(self, settings, finished, monkeypatch):
        path = finished[1]
        trained = []

        def record(self, job, *rest):
            trained.append((job.phase, job.epochs, job.seed))
            return make_row(job, row_key(job, self.fingerprint), accuracy=50.0, loss=1.0, seconds=1.0,
                            images_per_second=1.0, reason="", weights="")  # fmt: skip

        monkeypatch.setattr(run_module.ComparisonTrainer, "train", record)
        monkeypatch.setattr(Trainings, "add", lambda table, row: table.rows.update({row.key: row}))
        compared(replace(settings, seeds=(0, 1, 2)), path)
        assert trained == [("training", 1, 2)] * 2
        trained.clear()
        compared(replace(settings, recipe=replace(settings.recipe, label_smoothing=0.2)), path)
        assert len(trained) == 8

    def test_so_far_is_what_the_finished_trainings_say_and_leaves_the_folder_alone(self, settings, finished, tmp_path):
        whole, path = finished
        lines_of = (path / "trainings.csv").read_text().splitlines(keepends=True)
        for count, seeds in ((7, [{0, 1}, {0}]), (6, [{0}, {0}]), (5, [{0}])):  # 1 head, 4 short runs
            (tmp_path / "trainings.csv").write_text("".join(lines_of[: count + 1]) + "small,,tr")  # one being written
            found = comparison_so_far(settings, tmp_path)
            assert [set(one.accuracies) for one in found.contenders] == seeds
            for one, other in zip(found.contenders, whole.contenders, strict=False):
                assert one.accuracies.items() <= other.accuracies.items()
            assert (tmp_path / "trainings.csv").read_text().endswith("small,,tr")
        assert "(1 of 2 seeds)" in markdown(found)
        assert "of 2 seeds" not in markdown(whole)
        (tmp_path / "trainings.csv").write_text("".join(lines_of[:4]))  # short runs only
        with pytest.raises(ComparisonError, match="nothing to report"):
            comparison_so_far(settings, tmp_path)

    def test_final_comes_last_is_logged_and_opens_the_images_once(self, settings, finished, tmp_path):
        path = tmp_path / "w"
        with pytest.raises(ComparisonError, match="not done yet"):
            compared(settings, path, final=True)
        compared(settings, path)
        result = compared(settings, path, final=True)
        assert compared(settings, path, final=True) == result
        entries = [json.loads(line) for line in (path / "test_openings.jsonl").read_text().splitlines()]
        assert len(entries) == 1
        assert "4 trainings" in entries[0]["purpose"]
        assert entries[0]["commit"]
        for one, other in zip(result.contenders, finished[0].contenders, strict=True):
            assert one.accuracies == other.accuracies
            assert set(one.test_accuracies) == {0, 1}
        assert "test top-1" in markdown(result)

    def test_kept_weights_are_those_that_were_measured(self, settings, finished):
        comparison, path = finished
        trainer = make_trainer(settings)
        table = Trainings(path / "trainings.csv")
        for row in table.rows.values():
            if row.phase != "training":
                assert row.weights == ""
                continue
            network = next(one.network for one in comparison.contenders if one.network.name == row.network)
            model = run_module.load_weights(network, trainer.shape, path / "weights" / row.weights, row.key)
            assert run_module.measure(model, trainer.images) == row.accuracy
            with safe_open(path / "weights" / row.weights, framework="pt") as file:
                assert file.metadata()["genome"] == network.fingerprint
            with pytest.raises(ComparisonError, match="another training"):
                run_module.load_weights(network, trainer.shape, path / "weights" / row.weights, "0" * 16)
            with pytest.raises(ComparisonError, match="missing"):
                run_module.load_weights(network, trainer.shape, path / "nothing.safetensors", row.key)

    def test_crash_is_no_result_and_is_tried_again(self, settings, tmp_path, monkeypatch):
        train = run_module.ComparisonTrainer.train

        def crashing(self, job, *rest):
            if job.phase == "training" and job.seed == 1:
                raise MemoryError
            return train(self, job, *rest)

        monkeypatch.setattr(run_module.ComparisonTrainer, "train", crashing)
        with pytest.raises(ComparisonError, match=r"2 trainings failed, the first: small: MemoryError"):
            compared(settings, tmp_path / "w")
        monkeypatch.undo()
        assert all(len(one.accuracies) == 2 for one in compared(settings, tmp_path / "w").contenders)

    def test_divergence_is_a_result(self, settings, tmp_path, monkeypatch):
        train = trainings_module.train

        def diverging(model, data, recipe, epochs, seed, device):
            if seed == 1:
                raise TrainingFailed("The loss became nan in epoch 1.")
            return train(model, data, recipe, epochs, seed, device)

        monkeypatch.setattr(trainings_module, "train", diverging)
        comparison = compared(settings, tmp_path / "w")
        assert all(math.isnan(one.accuracies[1]) and one.accuracies[0] > 0 for one in comparison.contenders)
        assert "(1 failed)" in markdown(comparison)
        assert (tmp_path / "w/trainings.csv").read_text().count("The loss became nan") == 2
        monkeypatch.setattr(trainings_module, "train", lambda *_: pytest.fail("trained again"))
        compared(settings, tmp_path / "w")

    def test_divergence_of_the_very_first_run_is_a_result_like_any_other(self, settings, tmp_path, monkeypatch):
        train = trainings_module.train

        def diverging(model, data, recipe, epochs, seed, device):
            if recipe.lr == settings.lrs[0]:
                raise TrainingFailed("The loss became nan in epoch 1.")
            return train(model, data, recipe, epochs, seed, device)

        monkeypatch.setattr(trainings_module, "train", diverging)
        comparison = compared(replace(settings, seeds=(0,)), tmp_path / "w")
        assert [one.lr for one in comparison.contenders] == [settings.lrs[1]] * 2

    @pytest.mark.slow
    @pytest.mark.contract
    def test_worker_process_gives_the_same_figures(self, settings, finished, tmp_path):
        workers = replace(settings.workers, count=1)
        assert compared(replace(settings, workers=workers), tmp_path / "w").contenders == finished[0].contenders

    def test_one_process_a_folder(self, tmp_path):
        with ComparisonFolder(tmp_path), pytest.raises(ComparisonError, match="Another process"):
            ComparisonFolder(tmp_path)


class TestChoice:
    def choose(self, genome_file, tmp_path, accuracies):
        settings = config(
            genome_file,
            networks=[
                {"type": "gemnet", "genome": genome_file},
                {"type": "nasbench201", "forms": [{"cells": 1}, {"cells": 2}]},
            ],
        )
        compared = networks_compared(settings, DIGITS)
        table = Trainings(tmp_path / "t.csv")
        jobs = short_runs(settings, compared)
        for job, accuracy in zip(jobs, accuracies, strict=True):
            row = make_row(job, row_key(job, "f"), accuracy=accuracy, loss=0.0, seconds=1.0, images_per_second=1.0,
                           reason="no", weights="")  # fmt: skip
            table.add(row)
        chosen, given_up = choose(settings, compared, Trainings(tmp_path / "t.csv"), "f")
        return [(network.title, lr) for network, lr in chosen], given_up

    def test_best_rate_and_form_and_of_equals_the_smaller_rate(self, genome_file, tmp_path):
        chosen, given_up = self.choose(genome_file, tmp_path, [60, 60, 50, 51, math.nan, 70])
        assert chosen == [("small", 0.05), ("nasbench201 (cells 2)", 0.2)]
        assert given_up == ()

    def test_network_whose_every_run_failed_is_given_up(self, genome_file, tmp_path):
        chosen, given_up = self.choose(genome_file, tmp_path, [60, 61, *[math.nan] * 4])
        assert chosen == [("small", 0.2)]
        assert given_up == ("nasbench201",)

    def test_reference_can_not_be_given_up(self, genome_file, tmp_path):
        with pytest.raises(ComparisonError, match="Every short run of the reference failed"):
            self.choose(genome_file, tmp_path, [math.nan, math.nan, 1, 1, 1, 1])

    def test_nothing_to_choose_takes_no_runs(self, genome_file):
        settings = config(genome_file, lrs=[0.1])
        assert short_runs(settings, networks_compared(settings, DIGITS)) == []


class TestReport:
    @pytest.fixture
    def comparison(self, genome_file):
        def contender(name, cost, accuracies, group="", tests=None):
            network = describe(name, GenomeSource(genome_for("gemnet_a_cifar")), CIFAR, group=group)
            return Contender(replace(network, macs=cost), 0.1, accuracies, tests or {})

        return Comparison(
            (
                contender("ours", 890, {0: 91.0, 1: 92.0, 2: 93.0}),
                contender("theirs", 1000, {0: 90.0, 1: 90.5, 2: 92.5}),
                contender("broken", 1000, {0: math.nan, 1: 50.0, 2: math.nan}),
                contender("r_0", 890, {0: 90.0}, "random cells"),
                contender("r_1", 890, {0: 88.0}, "random cells"),
            ),
            ("hopeless",),
            config(genome_file, reference="ours", lrs=[0.1, 0.2]),
        )

    def test_lead_is_paired_by_seed(self, comparison):
        ours, theirs, broken, *_ = lines(comparison)
        assert ours.dev.lead is None
        assert theirs.dev.lead.mean == pytest.approx(1.0)
        # Differences 1, 1.5, 0.5: sd 0.5; t(0.975, 2) = 4.3027.
        assert theirs.dev.lead.low == pytest.approx(1 - 4.3027 * 0.5 / 3**0.5, abs=1e-4)
        assert theirs.macs_saved == pytest.approx(11)
        assert (broken.dev.n, broken.dev.failed, broken.dev.lead.mean) == (1, 2, 42.0)
        assert math.isnan(broken.dev.lead.low)

    def test_group_is_summed_up_over_its_cells(self, comparison):
        mean = lines(comparison)[-1]
        assert mean.name == "2 random cells: mean"
        assert mean.dev.mean == 89
        assert mean.dev.lead.mean == 2
        assert mean.dev.lead.n == 2

    def test_markdown_says_what_one_must_know(self, comparison):
        text = markdown(comparison)
        assert "| theirs | 0.00 | 11 % |" in text
        assert "+1.00 [-0.24, +2.24]" in text
        assert "50.00 (2 failed)" in text
        assert "the official test images were not opened" in text
        assert "At the edge of the learning rates offered: ours (0.1)" in text
        assert "hopeless" in text

    def test_csv_has_every_line(self, comparison):
        rows = list(csv.DictReader(as_csv(comparison).splitlines()))
        assert [row["network"] for row in rows] == ["ours", "theirs", "broken", "r_0", "r_1", "2 random cells: mean"]
        assert float(rows[1]["dev_lead"]) == pytest.approx(1.0)
        assert rows[0]["dev_lead"] == rows[0]["test_mean"] == ""

    @pytest.mark.filterwarnings("error::UserWarning")
    def test_picture_of_a_single_network_is_drawn(self, comparison, tmp_path):
        draw_comparison(replace(comparison, contenders=comparison.contenders[:1]), tmp_path / "a.png")
        assert (tmp_path / "a.png").stat().st_size > 1000

    def test_picture_is_drawn(self, comparison, tmp_path):
        draw_comparison(comparison, tmp_path / "a.png")
        assert (tmp_path / "a.png").stat().st_size > 10_000


class TestMistakes:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"lrs": []}, "lrs is empty"),
            ({"lrs": [0.1, 0.1]}, "lists a value twice"),
            ({"lrs": [-1]}, "between"),
            ({"networks": []}, "networks is empty"),
            ({"epochs": 0}, "epochs is at least 1"),
            ({"seeds": [0, 1000]}, "choice.seed"),
            ({"recipe": {"lr": 0.1}}, "Put it into lrs"),
            ({"recipe": {"batchsize": 4}}, "recipe.batch_size"),
            ({"refrence": "x"}, "reference"),
        ],
    )
    def test_in_the_settings(self, genome_file, changes, words):
        with pytest.raises(ConfigError, match=words):
            config(genome_file, **changes)

    @pytest.mark.parametrize(
        ("network", "words"),
        [
            ({"type": "tim", "arch": "resnet18"}, "Did you mean 'timm'"),
            ({"type": "timm", "arch": "resnet81"}, "timm has no network 'resnet81'"),
            ({"type": "timm", "arch": "vit_tiny_patch16_224"}, "can't be built for 8x8 images"),
            ({"type": "gemnet", "arch": "gemnet_z"}, "Unknown architecture 'gemnet_z'"),
            ({"type": "gemnet", "genome": "./nowhere.json"}, "nowhere.json: can't be read"),
            ({"type": "gemnet", "name": "x"}, "either arch"),
            ({"type": "mobilenetv2", "reductoin": 4}, "reduction"),
            ({"type": "mobilenetv2", "reduction": 3}, "4, 8, 16 or 32"),
            ({"type": "mobilenetv2", "macs_ratio": "much"}, "macs_ratio"),
            ({"type": "nasbench201", "arch": "|x~0|"}, "Not an architecture of NAS-Bench-201"),
            ({"type": "nasbench201", "cells": "many"}, "nasbench201"),
            ({"type": "block", "block": "vgg"}, "no block 'vgg'"),
            ({"type": "random_wiring", "nodes": 40}, "6 to 30"),
            ({"type": "random_cells", "space": {"forms": "cifar"}}, "space.form"),
            ({"type": "rewired", "count": 0}, "count is at least 1"),
            ({"type": "python", "build": "no_such_module:net"}, "PYTHONPATH"),
            ({"type": "python", "build": "math:net"}, "has no 'net'"),
            ({"type": "python", "build": "json:loads"}, "can't be built"),
            ({"type": "mobilenetv2", "name": "../up"}, "name consists of"),
            ({"type": "nasbench201", "forms": [{"cells": 1}, {"cells": 1}]}, "two forms"),
            ({"type": "nasbench201", "name": "small"}, "called 'small'"),
        ],
    )
    def test_in_a_network(self, genome_file, network, words):
        settings = config(genome_file, networks=[{"type": "gemnet", "genome": genome_file}, network])
        with pytest.raises((ConfigError, NetworkError, PeerError), match=words):
            networks_compared(settings, DIGITS)

    def test_a_network_without_anything_that_is_counted(self, tmp_path, monkeypatch, genome_file):
        (tmp_path / "odd_nets.py").write_text(
            "import torch\nfrom torch import nn\n"
            "class Odd(nn.Module):\n"
            "    def __init__(self, num_classes, in_chans):\n"
            "        super().__init__()\n"
            "        self.w = nn.Parameter(torch.zeros(in_chans, num_classes))\n"
            "    def forward(self, x):\n"
            "        return x.mean((2, 3)) @ self.w\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        odd = {"type": "python", "build": "odd_nets:Odd", "name": "odd"}
        settings = config(genome_file, networks=[{"type": "gemnet", "genome": genome_file}, odd])
        with pytest.raises(NetworkError, match="'odd' has no MACs to compare it by"):
            networks_compared(settings, DIGITS)

    def test_no_reference(self, genome_file):
        with pytest.raises(ConfigError, match=r"reference is 'gemnet_a'.* There are: small, nasbench201"):
            networks_compared(config(genome_file, reference="gemnet_a"), DIGITS)

    def test_fitted_reference(self, genome_file):
        with pytest.raises(ConfigError, match="itself fitted to the reference"):
            networks_compared(config(genome_file, reference="nasbench201"), DIGITS)

    def test_controls_need_a_genome(self):
        networks = [{"type": "timm", "arch": "resnet10t"}, {"type": "rewired"}]
        with pytest.raises(ConfigError, match="made from the reference's genome"):
            networks_compared(config("", reference="resnet10t", networks=networks), DIGITS)

    def test_table_of_something_else(self, tmp_path):
        (tmp_path / "t.csv").write_text("a,b\n1,2\n")
        with pytest.raises(CsvLogError, match="but what is written here has"):
            Trainings(tmp_path / "t.csv")


class TestCommand:
    def run(self, capsys, *arguments):
        code = compare.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    @pytest.fixture
    def file(self, genome_file, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "my_nets.py").write_text(
            "from torch import nn\n"
            "def plain(num_classes, in_chans, width):\n"
            "    return nn.Sequential(nn.Conv2d(in_chans, width, 3), nn.ReLU(),\n"
            "                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))\n"
            "class Shared(nn.Module):\n"  # one convolution under two names
            "    def __init__(self, width):\n"
            "        super().__init__()\n"
            "        self.first = self.second = nn.Conv2d(width, width, 3, padding=1)\n"
            "    def forward(self, x):\n"
            "        return self.second(self.first(x).relu())\n"
            "def shared(num_classes, in_chans, width):\n"
            "    return nn.Sequential(nn.Conv2d(in_chans, width, 3), Shared(width), nn.AdaptiveAvgPool2d(1),\n"
            "                         nn.Flatten(), nn.Linear(width, num_classes))\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        file = tmp_path / "mine.py"
        file.write_text(
            "data = dict(source='digits', dev_fraction=0.5)\nrecipe = dict(batch_size=64, flip=False)\n"
            "epochs = 1\nseeds = [0]\nlrs = [0.1]\nreference = 'plain'\nworkers = dict(count=0)\n"
            "networks = [dict(type='python', build='my_nets:plain', width=16),\n"
            "    dict(type='python', build='my_nets:shared', width=8),\n"
            f"    dict(type='mobilenetv2', reduction=4), dict(type='gemnet', genome={genome_file!r})]\n"
        )
        return file

    def test_compares_networks_of_ones_own_and_writes_tables(self, file, capsys):
        code, out, err = self.run(capsys, file)
        assert code == 0, err
        folder = Path("work_dirs/comparison_mine")
        assert (folder / "table.md").read_text() in out
        assert "| **plain** |" in out
        assert (folder / "table.csv").is_file()
        assert (folder / "accuracy.png").is_file()
        about = json.loads((folder / "comparison.json").read_text())
        assert [network["name"] for network in about["networks"]] == ["plain", "shared", "mobilenetv2", "small"]
        assert len(list((folder / "weights").glob("*.safetensors"))) == 4
        with ComparisonFolder(folder):  # as if it still ran
            assert self.run(capsys, file, "--report") == (0, out[out.index("| network") :], "")
        code, out, _ = self.run(capsys, file, "--report", "--cfg-options", "seeds=[0,1]")
        assert code == 0
        assert out.count("(1 of 2 seeds)") == 4

    def test_estimate_trains_nothing(self, file, capsys):
        code, out, _ = self.run(capsys, file, "--estimate")
        assert code == 0
        assert "images/s" in out
        assert "together" in out
        assert not Path("work_dirs").exists()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["cifar11"], "Did you mean 'cifar10'"),
            (["mine.py", "--cfg-options", "data.source=./nowhere"], "There is no image folder at"),
            (["mine.py", "--final"], "without --final first"),
            (["mine.py", "--report"], "nothing to report"),
            (["mine.py", "--workers", "-1"], "--workers"),
        ],
    )
    def test_mistakes_end_with_one_message(self, file, capsys, arguments, words):
        code, _, err = self.run(capsys, *arguments)
        assert code == 2
        assert words in err
        assert "Traceback" not in err

    def test_help_teaches(self, capsys):
        with pytest.raises(SystemExit):
            compare.main(["--help"])
        out = capsys.readouterr().out
        for word in ("--final", "--estimate", "--report", "weights/", "docs/comparison.md"):
            assert word in out


@pytest.mark.parametrize("name", ["cifar10", "imagenette96", "controls_cifar10"])
def test_shipped_comparisons_make_sense(name, monkeypatch):
    monkeypatch.setenv("GEMNET_DATA", "data")
    settings = load_comparison(find_config(name, "comparison"))
    images = Images(96 if name == "imagenette96" else 32, 3, 10)
    compared = networks_compared(settings, images)
    reference = compared[0].forms[0]
    assert compared[0].name == settings.reference
    assert len(compared) == {"cifar10": 5, "imagenette96": 5, "controls_cifar10": 18}[name]
    for entry in compared[1:]:
        for network in entry.forms:
            if network.group:
                assert network.macs == pytest.approx(reference.macs, rel=0.02)
            elif network.name == "mnasnet_small":  # timm's own, as it is
                assert network.macs < reference.macs
            else:
                assert network.macs >= reference.macs
            if network.name in ("nasbench201", "mobilenetv3_small", "mnasnet_050"):
                assert network.macs >= reference.macs / 0.89


def test_own_network_is_another_when_its_code_is(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "own_code.py"
    code = (
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, classes):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(64, classes)\n"
        "    def forward(self, x):\n"
        "        return self.layer(x.flatten(1) * 1)\n"
        "def make(num_classes, in_chans):\n"
        "    return Net(num_classes)\n"
    )
    found = []
    for text in (code, code, code.replace("* 1", "* 2")):
        file.write_text(text)
        monkeypatch.delitem(sys.modules, "own_code", raising=False)
        importlib.invalidate_caches()
        found.append(describe("own", PythonSource("own_code:make"), DIGITS).fingerprint)
    assert found[0] == found[1] != found[2]


def test_job_key_changes_with_whatever_changes_the_result():
    network = describe("r", TimmSource("resnet10t"), DIGITS)
    job = Job(network, "training", 0.1, 0, 3)
    others = [
        replace(job, lr=0.2),
        replace(job, seed=1),
        replace(job, epochs=4),
        replace(job, subset=0.5),
        replace(job, phase="choice"),
        replace(job, network=describe("r", TimmSource("resnet10t", {"stem_width": 16}), DIGITS)),
    ]
    keys = {row_key(one, "f") for one in (job, *others)} | {row_key(job, "g"), row_key(job, "f", "test")}
    assert len(keys) == 9
    assert row_key(replace(job, network=replace(network, name="other")), "f") == row_key(job, "f")

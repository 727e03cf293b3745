"""Comparisons: equal treatment, fitted peers, true controls, nothing lost or done twice, test images kept shut."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from comparison_doubles import DIGITS, compared, config, settings_of
from executor_doubles import OwnExecutor
from safetensors import safe_open
from safetensors.torch import load_file

from gemnet.data import datasets
from gemnet.data.datasets import BALANCES, DataSpec
from gemnet.sources import (
    TimmSource,
    describe,
)
from gemnet.stopping import STOP
from gemnet.training.loop import TrainingFailed
from gemnet.training.recipe import Recipe
from gemnet.training.state import TrainingState
from gemnet.training.teacher import TeacherError
from nas.commands import compare as compare_command
from nas.studies.comparison import run as run_module
from nas.studies.comparison import trainings as trainings_module
from nas.studies.comparison.networks import networks_compared
from nas.studies.comparison.report import markdown
from nas.studies.comparison.run import (
    ComparisonFolder,
    choose,
    comparison_so_far,
    make_executor,
    make_trainer,
    short_runs,
)
from nas.studies.comparison.trainings import ComparisonError, ComparisonTrainer, Job, Trainings, make_row, row_key

REPOSITORY = Path(__file__).resolve().parents[3]


def interruptible(genome_file, folder):
    """What a training of three epochs comes to, and a config of the same."""
    networks = [{"type": "gemnet", "genome": genome_file}]
    changes = {"epochs": 3, "seeds": [0], "lrs": [0.1], "networks": networks}
    compared(config(genome_file, **changes), folder / "whole")
    file = folder / "mine.py"
    file.write_text("".join(f"{key} = {value!r}\n" for key, value in settings_of(genome_file, **changes).items()))
    return accuracies(folder / "whole"), file


def accuracies(folder):
    """(network, accuracy, loss) of each training in a folder."""
    with (folder / "trainings.csv").open() as file:
        return [(row["network"], row["accuracy"], row["loss"]) for row in csv.DictReader(file)]


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

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_the_first_signal_ends_a_training_with_its_epoch(self, genome_file, tmp_path, monkeypatch, capfd, number):
        whole, file = interruptible(genome_file, tmp_path)
        save, epochs = TrainingState.save, []

        def interrupted(state, *arguments):
            save(state, *arguments)
            epochs.append(len(state.history))
            if epochs == [1]:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(TrainingState, "save", interrupted)
        arguments = [str(file), "--work-dir", str(tmp_path / "w")]
        assert compare_command.main(arguments) == 130
        said = capfd.readouterr().err
        assert "ends with its epoch" in said
        assert said.strip().splitlines()[-1] == f"Interrupted. To go on: python tools/compare.py {' '.join(arguments)}"
        assert not (tmp_path / "w" / STOP).exists()
        assert compare_command.main(arguments) == 0
        assert epochs == [1, 2, 3]
        assert accuracies(tmp_path / "w") == whole

    @pytest.mark.slow
    @pytest.mark.contract
    def test_workers_end_their_epoch_when_the_whole_group_is_signalled(self, genome_file, tmp_path):
        whole, file = interruptible(genome_file, tmp_path)
        with file.open("a") as config:
            config.write("workers = dict(count=1, type='executor_doubles.Signalling')\n")
        command = [sys.executable, str(REPOSITORY / "tools/compare.py"), str(file), "--work-dir", str(tmp_path / "w")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            command, env=environment, start_new_session=True, capture_output=True, text=True, check=False
        )
        assert done.returncode == 130, done.stderr
        assert "Interrupted. To go on: python tools/compare.py " in done.stderr
        (course,) = (tmp_path / "w/weights").glob("*.csv")
        assert len(course.read_text().splitlines()) == 1 + 2
        assert compare_command.main([*command[2:], "--workers", "0"]) == 0
        assert accuracies(tmp_path / "w") == whole

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
        (left,), (right,) = ((tmp_path / folder / "weights").glob("*.csv") for folder in ("whole", "copy"))
        assert left.read_text() == right.read_text()
        (left,), (right,) = ((tmp_path / folder / "weights").glob("*.safetensors") for folder in ("whole", "copy"))
        weights = load_file(right)
        assert all(torch.equal(value, weights[key]) for key, value in load_file(left).items())

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
            model = run_module.trained_network(network, trainer.shape, path / "weights" / row.weights, row.key)
            assert run_module.measure(model, trainer.images) == row.accuracy
            with safe_open(path / "weights" / row.weights, framework="pt") as file:
                assert file.metadata()["genome"] == network.fingerprint
            with pytest.raises(ComparisonError, match="another training"):
                run_module.trained_network(network, trainer.shape, path / "weights" / row.weights, "0" * 16)
            with pytest.raises(ComparisonError, match="missing"):
                run_module.trained_network(network, trainer.shape, path / "nothing.safetensors", row.key)

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

        def diverging(model, data, recipe, epochs, seed, device, **options):
            if seed == 1:
                raise TrainingFailed("The loss became nan in epoch 1.")
            return train(model, data, recipe, epochs, seed, device, **options)

        monkeypatch.setattr(trainings_module, "train", diverging)
        comparison = compared(settings, tmp_path / "w")
        assert all(math.isnan(one.accuracies[1]) and one.accuracies[0] > 0 for one in comparison.contenders)
        assert "(1 failed)" in markdown(comparison)
        assert (tmp_path / "w/trainings.csv").read_text().count("The loss became nan") == 2
        monkeypatch.setattr(trainings_module, "train", lambda *_: pytest.fail("trained again"))
        compared(settings, tmp_path / "w")

    def test_divergence_of_the_very_first_run_is_a_result_like_any_other(self, settings, tmp_path, monkeypatch):
        train = trainings_module.train

        def diverging(model, data, recipe, epochs, seed, device, **options):
            if recipe.lr == settings.lrs[0]:
                raise TrainingFailed("The loss became nan in epoch 1.")
            return train(model, data, recipe, epochs, seed, device, **options)

        monkeypatch.setattr(trainings_module, "train", diverging)
        comparison = compared(replace(settings, seeds=(0,)), tmp_path / "w")
        assert [one.lr for one in comparison.contenders] == [settings.lrs[1]] * 2

    @pytest.mark.slow
    @pytest.mark.contract
    def test_worker_process_gives_the_same_figures(self, settings, finished, tmp_path):
        workers = replace(settings.workers, count=1)
        assert compared(replace(settings, workers=workers), tmp_path / "w").contenders == finished[0].contenders

    def test_an_executor_of_ones_own_trains_where_the_config_names_it(self, settings, tmp_path):
        own = replace(settings, workers=replace(settings.workers, type="executor_doubles.OwnExecutor", count=2))
        with ComparisonFolder(tmp_path / "w") as folder:
            made = make_executor(own, make_trainer(own), folder)
        assert isinstance(made, OwnExecutor)
        assert made.given == (2, own.workers.threads, folder.worker_log)

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


def test_trainings_of_another_balance_are_other_trainings():
    found = {ComparisonTrainer(DataSpec("digits", balance=each), Recipe()).fingerprint for each in BALANCES}
    assert len(found) == 3

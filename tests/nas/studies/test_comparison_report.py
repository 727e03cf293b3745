"""A comparison's table and picture, its mistakes and its command."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from comparison_doubles import CIFAR, DIGITS, config

from gemnet.models import genome_for
from gemnet.sources import (
    GenomeSource,
    NetworkError,
    describe,
)
from gemnet.strict import ConfigError
from nas.commands import compare
from nas.studies.comparison.networks import networks_compared
from nas.studies.comparison.peers import PeerError
from nas.studies.comparison.picture import draw_comparison
from nas.studies.comparison.report import as_csv, lines, markdown
from nas.studies.comparison.run import (
    Comparison,
    ComparisonFolder,
    Contender,
)
from nas.studies.comparison.trainings import Trainings
from nas.studies.csv_log import CsvLogError


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

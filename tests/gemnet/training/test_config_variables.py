"""Options that name a variable of a config change all that is made from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemnet.config_files import read_file
from gemnet.training.runner_config import RunnerError, load_runner_config
from nas.commands.options import Typed

BASE = "side = 32\nepochs = 10\ndata = dict(size=side)\nschedule = [dict(end=epochs), dict(end=epochs * 2)]\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "_base_").mkdir()
    (tmp_path / "_base_/base.py").write_text(BASE)
    (tmp_path / "config.py").write_text(
        "_base_ = ['_base_/base.py']\nname = 'größe'  # ä\nmodel = dict(type='x', called=name)\n"
    )
    return tmp_path / "config.py"


def test_what_is_made_from_a_variable_follows_it_in_config_and_bases(config: Path) -> None:
    loaded = load_runner_config(config, {"side": 64, "epochs": 3, "name": "it's", "model.type": "y"})
    assert loaded.data.size == 64
    assert [part.end for part in loaded.schedule] == [3, 6]
    assert loaded.model == {"type": "y", "called": "it's"}
    assert loaded.filename == str(config)


def test_what_is_typed_for_a_text_stays_a_text(config: Path) -> None:
    typed = {"name": Typed("2024", 2024), "side": Typed("64", 64), "model.type": Typed("7", 7)}
    loaded = load_runner_config(config, typed)
    assert loaded.model == {"type": "7", "called": "2024"}
    assert loaded.data.size == 64


def test_without_options_the_config_is_read_as_it_is(config: Path) -> None:
    loaded = load_runner_config(config)
    assert loaded.data.size == 32
    assert loaded.model.called == "größe"


def test_other_options_are_merged_as_before(config: Path) -> None:
    loaded = load_runner_config(config, {"data": {"size": 5}, "resume": True, "schedule.0.end": 7, "data.new": 1})
    assert (loaded.data.size, loaded.data.new) == (5, 1)
    assert loaded.resume is True
    assert [part.end for part in loaded.schedule] == [7, 20]
    with pytest.raises(RunnerError, match="no variable of this name"):
        load_runner_config(config, {"new": 1})


def test_variables_may_be_computed_or_lists(config: Path) -> None:
    (config.parent / "_base_/base.py").write_text(
        "a = 2\nb = a * 2\nsteps = [\n    8, 11]\nc = dict(b=b, steps=steps, d=-a)\n"
    )
    loaded = load_runner_config(config, {"b": 7, "steps": [1, 2], "a": -3})
    assert (loaded.a, loaded.b, loaded.c) == (-3, 7, {"b": 7, "steps": [1, 2], "d": 3})


def test_what_mmengine_itself_reads_is_merged_and_not_replaced(config: Path) -> None:
    (config.parent / "_base_/base.py").write_text("n = 2\nhooks = n + 1\ncustom_hooks = [dict(type='A', n=n)]\n")
    loaded = load_runner_config(config, {"custom_hooks": [{"type": "B"}], "n": 5})
    assert (loaded.custom_hooks, loaded.hooks) == ([{"type": "B"}], 6)


def test_a_config_that_can_not_be_read_is_named_by_its_own_path(config: Path) -> None:
    config.write_text("side = 1\nx = = 2\n")
    with pytest.raises(RunnerError, match=r"config\.py can't be read"):
        load_runner_config(config, {"side": 2})


@pytest.mark.parametrize(
    ("name", "options", "places"),
    [
        (
            "cifar10",
            {"data_root": "photos", "resolution": 24},
            ["train_dataloader", "val_dataloader", "test_dataloader"],
        ),
        ("imagenette96", {"data_root": "photos", "resolution": 64}, ["train_dataloader", "test_dataloader"]),
    ],
)
def test_our_configs_take_their_data_by_one_option(name: str, options: dict[str, object], places: list[str]) -> None:
    file = {"cifar10": "gemnet_a_cifar_cifar10", "imagenette96": "gemnet_a_imagenette96"}[name]
    path = Path(__file__).resolve().parents[3] / f"configs/classification/{file}.py"
    loaded = load_runner_config(path, options)
    for place in places:
        assert loaded[place].dataset.source == "photos"
        assert loaded[place].dataset.resolution == options["resolution"]


def test_a_config_written_before_modules_moved_is_read_under_their_names_of_today(tmp_path: Path) -> None:
    file = tmp_path / "old.py"
    file.write_text("custom_imports = dict(imports=['nas.training.classification', 'nas.images.files'])\n")
    assert load_runner_config(file).custom_imports.imports == ["gemnet.classification"]


def test_a_config_of_ours_is_a_base_from_any_folder_and_its_variables_follow(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("_base_ = ['gemnet::classification/gemnet_a_cifar_cifar10.py']\n")
    assert load_runner_config(tmp_path / "own.py").model.arch == "gemnet_a_cifar"
    loaded = load_runner_config(tmp_path / "own.py", {"max_epochs": 3})
    assert loaded.train_cfg.max_epochs == 3
    (tmp_path / "slip.py").write_text("_base_ = ['gemnet::classification/gemnet_a_cifar_cifar1.py']\n")
    with pytest.raises(ValueError, match=r"Did you mean 'classification/gemnet_a_cifar_cifar10\.py'"):
        load_runner_config(tmp_path / "slip.py")


def test_what_a_config_assigns_for_its_bases_reaches_them(config: Path) -> None:
    text = config.read_text()
    config.write_text(text + "epochs = 4\nhere = '{{ fileDirname }}'\n")
    loaded = load_runner_config(config)
    assert [part.end for part in loaded.schedule] == [4, 8]
    assert loaded.here == str(config.parent)
    assert [part.end for part in load_runner_config(config, {"epochs": 3}).schedule] == [3, 6]
    # what the config uses itself is its own
    config.write_text(text + "side = 64\nval_dataloader = dict(size=side)\n")
    loaded = load_runner_config(config)
    assert (loaded.data.size, loaded.val_dataloader["size"]) == (32, 64)


def test_what_a_config_assigns_for_a_base_of_another_package_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("mmdet", reason="pip install '.[detection]' brings MMDetection")
    config = tmp_path / "own.py"
    config.write_text("_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'\nmax_epochs = 3\n")
    with pytest.raises(RunnerError, match=r"max_epochs.*changes nothing.*train_cfg\.max_epochs"):
        load_runner_config(config)
    config.write_text("_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'\ntrain_cfg = dict(max_epochs=3)\n")
    assert load_runner_config(config).train_cfg.max_epochs == 3


def test_reading_a_config_logs_no_environment_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOME_FOLDER", "somewhere")
    file = tmp_path / "named.py"
    file.write_text("place = '{{$SOME_FOLDER:data}}/images'\n")
    assert load_runner_config(file).place == read_file(file)["place"] == "somewhere/images"
    assert "SOME_FOLDER" not in "".join(capfd.readouterr())

"""Published weights as a Hugging Face style folder that timm reads, and on a hub that is only pretended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from zoo_doubles import ARCH, CLASSES, NAME, draw_weights

import gemnet.weights
from gemnet.errors import GemnetError
from gemnet.weights import packaged_weights
from gemnet.zoo.folder import write_folder
from gemnet.zoo.publish import enter_weights, write_weights
from nas.commands import zoo as command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of published weights."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/index.json").write_text("{}")
    monkeypatch.setattr(gemnet.weights, "FOLDER", tmp_path / "weights")
    packaged_weights.cache_clear()
    source = draw_weights(tmp_path / "trained.safetensors")
    card = tmp_path / "card.md"
    card.write_text("# A card\n")
    entry = write_weights(source, NAME, "Of tints.", 48, (0.4, 0.5, 0.6), (0.2, 0.3, 0.2), precision="float32")
    enter_weights(NAME, entry)
    yield write_folder(NAME, tmp_path / "made", card)
    monkeypatch.undo()
    packaged_weights.cache_clear()


def outputs(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1)))


def test_timm_reads_the_folder_with_all_it_says(folder: Path, tmp_path: Path) -> None:
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    source = timm.create_model(ARCH, num_classes=len(CLASSES))
    source.load_state_dict(load_file(tmp_path / "trained.safetensors"))
    assert torch.equal(outputs(model), outputs(source))
    data = timm.data.resolve_model_data_config(model)
    assert tuple(data["input_size"]) == (3, 48, 48)
    assert tuple(data["mean"]) == (0.4, 0.5, 0.6)
    assert data["crop_pct"] == 1.0
    assert tuple(model.pretrained_cfg["label_names"]) == CLASSES
    assert model.genome.fingerprint == gemnet.genome_for(ARCH).fingerprint
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_the_folder_adapts_as_any_pretrained_network(folder: Path) -> None:
    own = timm.create_model(f"local-dir:{folder}", pretrained=True)
    other = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=7)
    assert outputs(other).shape == (2, 7)
    assert torch.equal(own.stem[0].conv.weight, other.stem[0].conv.weight)
    assert timm.create_model(f"local-dir:{folder}", pretrained=True, features_only=True).feature_info.reduction()
    assert timm.create_model(f"local-dir:{folder}", pretrained=True, in_chans=1)(torch.randn(1, 1, 48, 48)).shape == (
        1,
        4,
    )
    assert not torch.equal(outputs(timm.create_model(f"local-dir:{folder}")), outputs(own))


def test_truncated_altered_and_foreign_weights_are_refused(folder: Path) -> None:
    weights, config = folder / "model.safetensors", folder / "config.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:3000])
    with pytest.raises(GemnetError, match=r"damaged or was altered\. Make or download the folder again"):
        timm.create_model(f"local-dir:{folder}", pretrained=True)
    about = json.loads(config.read_text())
    config.write_text(json.dumps({key: value for key, value in about.items() if key != "gemnet"}))
    with pytest.raises(GemnetError, match="can't be read as safetensors"):
        timm.create_model(f"local-dir:{folder}", pretrained=True)
    weights.write_bytes(whole)
    save_file(load_file(weights), weights, {"genome": "0" * 16})
    with pytest.raises(GemnetError, match="belongs to another genome"):
        timm.create_model(f"local-dir:{folder}", pretrained=True)
    weights.unlink()
    with pytest.raises(GemnetError, match=r"holds no model\.safetensors"):
        timm.create_model(f"local-dir:{folder}", pretrained=True)


def test_a_folder_that_holds_something_is_left_alone(folder: Path) -> None:
    with pytest.raises(GemnetError, match="not empty"):
        write_folder(NAME, folder)


class PretendedApi:
    """Remembers what it is asked for."""

    calls: ClassVar[list[tuple[str, Any]]] = []

    def __init__(self, **options: Any) -> None:
        self.calls.append(("api", options))

    def create_repo(self, repo_id: str, **options: Any) -> huggingface_hub.RepoUrl:
        self.calls.append(("create_repo", (repo_id, options)))
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self, **options: Any) -> None:
        self.calls.append(("upload_folder", options))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """A pretended hub and no token; returns what it was asked for."""
    PretendedApi.calls = []
    monkeypatch.setattr(huggingface_hub, "HfApi", PretendedApi)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    return PretendedApi.calls


def push(folder: Path, repo: str = "me/net", *flags: str) -> int:
    return command.main(["hub", str(folder), "--repo", repo, *flags])


def test_push_uploads_the_folder_and_nothing_else(
    folder: Path, hub: list[tuple[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(folder, "me/net", "--token", "hf_pretended", "--private") == 0
    (_, api), (_, (repo, create)), (_, upload) = hub
    assert api["token"] == "hf_pretended"
    assert (repo, create["private"], create["exist_ok"]) == ("me/net", True, True)
    assert (upload["repo_id"], upload["folder_path"]) == ("me/net", str(folder))
    assert {"config.json", "model.safetensors", "README.md"} <= set(upload["allow_patterns"])
    output = capsys.readouterr()
    assert "hf-hub:me/net" in output.out
    assert "hf_pretended" not in output.out + output.err


def test_push_uses_the_token_huggingface_hub_knows(
    folder: Path, hub: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_kept")
    assert push(folder) == 0
    assert hub[0][1]["token"] == "hf_kept"


def test_push_without_a_token_says_how_to_get_one(
    folder: Path, hub: list[tuple[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(folder) == 2
    assert "HF_TOKEN" in capsys.readouterr().err
    assert not hub


def test_refusals_of_the_hub_are_one_message(
    folder: Path, hub: list[tuple[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("403 Forbidden: you have no right to write here")

    monkeypatch.setattr(PretendedApi, "create_repo", refuse)
    assert push(folder, "me/net", "--token", "x") == 2
    message = capsys.readouterr().err
    assert "403 Forbidden" in message
    assert "Traceback" not in message


@pytest.mark.parametrize("repo", ["net", "me/", "/net", "a/b/c"])
def test_malformed_repository_names_are_refused(
    repo: str, folder: Path, hub: list[tuple[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(folder, repo, "--token", "x") == 2
    assert "<owner>/<name>" in capsys.readouterr().err


def test_folders_with_other_things_or_damage_are_not_pushed(
    folder: Path, hub: list[tuple[str, Any]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert push(folder, "me/net", "--token", "x") == 2
    assert "pytorch_model.bin" in capsys.readouterr().err
    (folder / "pytorch_model.bin").unlink()
    (folder / "model.safetensors").write_bytes(b"cut")
    assert push(folder, "me/net", "--token", "x") == 2
    assert "damaged" in capsys.readouterr().err
    assert push(tmp_path / "none", "me/net", "--token", "x") == 2
    assert "tools/zoo.py folder" in capsys.readouterr().err
    assert not hub

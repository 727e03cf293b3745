"""Names in timm: registering one's own, genomes as arguments, weights by tag."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import gemnet
import gemnet.weights
from gemnet.classics import chain, mobilenetv2
from gemnet.errors import GemnetError, GenomeError
from gemnet.genome import Genome
from gemnet.templates import template


@pytest.fixture
def genome() -> Genome:
    return template("cifar", "a").genome(chain("dw3x3_bn_act"), width=0.5, inner_ratio=2)


@pytest.fixture
def own_name(request: pytest.FixtureRequest) -> str:
    """A name of the test's own: what is registered stays so for the process."""
    return f"own_{request.node.name}"


def test_a_genome_builds_from_its_file_its_dict_or_itself(genome: Genome, tmp_path: Path) -> None:
    genome.save(tmp_path / "best.json")
    for source in (genome, genome.to_dict(), str(tmp_path / "best.json"), tmp_path / "best.json"):
        model = timm.create_model("gemnet", genome=source)
        assert model.genome == genome
        assert model.num_classes == 10
        assert model.default_cfg["input_size"] == (3, 32, 32)
    assert timm.create_model("gemnet", genome=genome, num_classes=3).num_classes == 3


def test_without_a_genome_it_is_gemnet_b() -> None:
    with torch.device("meta"):
        assert timm.create_model("gemnet", device="meta").genome == gemnet.genome_for("gemnet_b")


def test_a_named_network_takes_no_other_genome(genome: Genome, own_name: str) -> None:
    gemnet.register(own_name, genome)
    for name in ("gemnet_a_cifar", own_name):
        with pytest.raises(GemnetError, match=rf"'{name}' has its genome.*create_model\('gemnet', genome="):
            timm.create_model(name, genome="x.json")
    assert timm.create_model(own_name, genome=None).genome == genome


@pytest.mark.parametrize(
    ("indices", "said"),
    [
        ((9,), r"holds 9; .* 0: stride 1, 1: stride 2, 2: stride 4\.$"),
        ((0, 3), "holds 3;"),
        ([-4], "holds -4;"),
        (4, "the last 4 levels; there are 0: stride 1"),
        (0, "the last 0 levels"),
    ],
)
def test_levels_that_are_not_there_are_refused(genome: Genome, indices: Any, said: str) -> None:
    with pytest.raises(GemnetError, match=said):
        timm.create_model("gemnet", genome=genome, features_only=True, out_indices=indices)


@pytest.mark.parametrize(("indices", "strides"), [((0, 2), [1, 4]), ([-1], [4]), (2, [2, 4]), (None, [1, 2, 4])])
def test_levels_are_named_as_timm_has_them(genome: Genome, indices: Any, strides: list[int]) -> None:
    model = timm.create_model("gemnet", genome=genome, features_only=True, out_indices=indices)
    assert [4 // (each.shape[-1] // 8) for each in model(torch.zeros(1, 3, 32, 32))] == strides


def test_registered_name_works_like_any_other(genome: Genome, own_name: str) -> None:
    build = gemnet.register(own_name, genome)
    assert own_name in timm.list_models()
    assert gemnet.genome_for(own_name) == gemnet.genome_for(own_name + ".sometag") == genome
    assert timm.create_model(own_name, num_classes=4).num_classes == 4
    assert build().default_cfg["input_size"] == (3, 32, 32)
    assert timm.create_model(own_name, features_only=True).feature_info.reduction() == [1, 2, 4]
    gemnet.register(own_name, genome)  # the same again is no conflict
    with pytest.raises(GemnetError, match="stands for another network"):
        gemnet.register(own_name, mobilenetv2())


@pytest.mark.parametrize("name", ["", "my.net", "my net", "3net", "-", None])
def test_malformed_names_are_refused(genome: Genome, name: Any) -> None:
    with pytest.raises(GemnetError, match="letters, digits and '_'"):
        gemnet.register(name, genome)


def test_names_of_timm_are_not_taken(genome: Genome) -> None:
    with pytest.raises(GemnetError, match="'resnet50' stands for another network"):
        gemnet.register("resnet50", genome)
    with pytest.raises(GenomeError, match="format is missing"):
        gemnet.register("my_net", {})


def test_unknown_architectures_are_named_with_the_nearest() -> None:
    with pytest.raises(GemnetError, match="Did you mean 'gemnet_b'"):
        gemnet.genome_for("gemnet_bb")


@pytest.fixture
def tagged(genome: Genome, own_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Publishes weights for `own_name` under the tag ``test``, in a folder that stands in for the package's."""

    def publish(**entry: Any) -> Path:
        torch.manual_seed(3)
        weights = timm.create_model("gemnet", genome=genome, num_classes=6).state_dict()
        draft = tmp_path / "draft.safetensors"
        save_file(weights, draft)
        digest = hashlib.sha256(draft.read_bytes()).hexdigest()
        path = draft.rename(tmp_path / f"{own_name}.test-{digest[:8]}.safetensors")
        full = {
            "file": path.name,
            "sha256": digest,
            "fingerprint": genome.fingerprint,
            "num_classes": 6,
            "input_size": 48,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.2, 0.2, 0.2],
            **entry,
        }
        (tmp_path / "index.json").write_text(json.dumps({f"{own_name}.test": full}))
        monkeypatch.setattr(gemnet.weights, "FOLDER", tmp_path)
        gemnet.weights.packaged_weights.cache_clear()
        gemnet.register(own_name, genome)
        return path

    yield publish
    monkeypatch.undo()
    gemnet.weights.packaged_weights.cache_clear()


def test_tagged_weights_load_without_a_network(tagged: Callable[..., Path], own_name: str, genome: Genome) -> None:
    tagged()
    torch.manual_seed(3)
    source = timm.create_model("gemnet", genome=genome, num_classes=6).eval()
    model = timm.create_model(f"{own_name}.test", pretrained=True).eval()
    x = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(model(x), source(x))
    assert model.default_cfg["input_size"] == (3, 48, 48)
    assert model.default_cfg["mean"] == (0.5, 0.5, 0.5)
    adapted = timm.create_model(f"{own_name}.test", pretrained=True, num_classes=3, in_chans=1)
    assert adapted(torch.randn(2, 1, 48, 48)).shape == (2, 3)
    features = timm.create_model(f"{own_name}.test", pretrained=True, features_only=True)
    torch.testing.assert_close(features.state_dict()["stem_0.conv.weight"], source.state_dict()["stem.0.conv.weight"])


def test_whoever_asks_a_genome_for_weights_is_told_how_they_are_given() -> None:
    with pytest.raises(GemnetError, match=r"checkpoint_path='.*gemnet\.register"):
        timm.create_model("gemnet", genome=gemnet.genome_for("gemnet_a_cifar"), pretrained=True)


def test_the_bare_name_stays_untrained_with_its_own_classes(tagged: Callable[..., Path], own_name: str) -> None:
    tagged()
    assert timm.create_model(own_name).num_classes == 10
    with pytest.raises(GemnetError, match=rf"carries no weights. There are: {own_name}.test"):
        timm.create_model(own_name, pretrained=True)


def test_damaged_weights_are_refused(tagged: Callable[..., Path], own_name: str) -> None:
    path = tagged()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(GemnetError, match=r"sha256 is .* expected"):
        timm.create_model(f"{own_name}.test", pretrained=True)
    path.write_bytes(bytes(data[:100]))
    with pytest.raises(GemnetError, match="damaged or was altered"):
        timm.create_model(f"{own_name}.test", pretrained=True)
    path.unlink()
    with pytest.raises(GemnetError, match="can't be read"):
        timm.create_model(f"{own_name}.test", pretrained=True)


def test_weights_of_another_genome_are_refused(tagged: Callable[..., Path], own_name: str) -> None:
    tagged(fingerprint="0" * 16)
    with pytest.raises(GemnetError, match="belongs to another genome"):
        timm.create_model(f"{own_name}.test", pretrained=True)


def test_tags_that_do_not_exist_list_those_that_do(tagged: Callable[..., Path], own_name: str) -> None:
    tagged()
    with pytest.raises(GemnetError, match=rf"There is no {own_name}.tset. There are: .*{own_name}.test"):
        timm.create_model(f"{own_name}.tset", pretrained=True)
    with pytest.raises(GemnetError, match="Did you mean"):
        gemnet.weights.find_weights(f"{own_name}.tset")


def test_packaged_weights_are_whole_and_belong_to_their_genomes() -> None:
    for name, weights in gemnet.weights.packaged_weights().items():
        assert gemnet.weights.verify_weights(weights).name == weights.file
        assert weights.sha256[:8] in weights.file
        assert weights.fingerprint == gemnet.genome_for(name).fingerprint


@pytest.mark.parametrize(
    "code",
    [
        """
import gemnet, sys, timm
assert timm.create_model("gemnet_a").genome == gemnet.genome_for("gemnet_a")
assert not {"mmengine", "mmcv", "mmdet", "nas"} & set(sys.modules), "nobody asked for these"
""",
        """
import timm
assert not timm.list_models("gemnet*"), "timm knows nothing of us by itself"
import gemnet
assert "gemnet_a" in timm.list_models("gemnet*")
""",
        """
from mmengine.registry import MODELS
network = MODELS.build(dict(type="gemnet.GEMNet", arch="gemnet_a_cifar"))  # its scope is the package mmengine imports
import timm
assert "gemnet_a" in timm.list_models("gemnet*")
""",
    ],
    ids=["before timm", "after timm", "by mmengine"],
)
def test_importing_gemnet_registers_its_names(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_scripting_is_refused_in_one_line_and_tracing_works() -> None:
    model = timm.create_model("gemnet_a_cifar").eval()
    with pytest.raises(GemnetError, match=r"torch\.jit\.script can't compile a GEMNet"):
        torch.jit.script(model)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.trace(model, x)(x), model(x))


def test_fewer_than_no_classes_are_refused_and_change_nothing() -> None:
    model = timm.create_model("gemnet_a_cifar")
    with pytest.raises(GemnetError, match=r"num_classes is at least 0 .*got -3"):
        model.reset_classifier(-3)
    assert (model.num_classes, model.classifier.out_features) == (10, 10)
    for options, name in (({"num_classes": -1}, "num_classes"), ({"in_chans": 0}, "in_chans")):
        with pytest.raises(GemnetError, match=f"{name} is at least"):
            timm.create_model("gemnet_a_cifar", **options)

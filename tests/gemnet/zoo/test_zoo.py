"""The model zoo: publishing, tables made from logs, checks that find what disagrees, reproduced accuracy."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from zoo_doubles import ARCH, CLASSES, NAME, Repository, draw_weights, make_repository

import gemnet.detector_weights
import gemnet.weights
import gemnet.zoo.measure
import nas.commands.zoo as zoo_command
from gemnet.weights import packaged_weights
from gemnet.zoo.check import TOLERANCE, problems
from gemnet.zoo.measure import build, measure_accuracy, measure_speeds
from gemnet.zoo.picture import PICTURE, draw_zoo, is_current
from gemnet.zoo.results import Figures, Result, Speed, load_results
from gemnet.zoo.tables import readme

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A zoo without anything published; the package's weights are out of reach."""
    monkeypatch.setenv("GEMNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gemnet.zoo.measure, "ROUNDS", 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/index.json").write_text("{}")
    monkeypatch.setattr(gemnet.weights, "FOLDER", tmp_path / "weights")
    monkeypatch.setattr(gemnet.detector_weights, "FOLDER", tmp_path / "weights/detectors")
    packaged_weights.cache_clear()
    yield make_repository(tmp_path / "repository")
    torch.set_num_threads(threads)
    monkeypatch.undo()
    packaged_weights.cache_clear()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return draw_weights(tmp_path / "trained.safetensors", mean="[0.4, 0.4, 0.4]", std="[0.2, 0.2, 0.2]")


def refused(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> None:
    """Asserts exit code 2 and one message with these words."""
    assert code == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "error: " in message
    for word in words:
        assert word in message, message


def test_zoo_without_weights_says_so(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    text = (repository.zoo / "README.md").read_text()
    assert "No weights are published yet" in text
    assert "There are no ImageNet-1k weights of GEMNet yet" in text
    assert repository.run("check") == 0
    assert repository.run("list") == 0
    assert "No weights are published yet" in capsys.readouterr().out


def test_published_weights_are_named_by_their_sha256_and_described(repository: Repository, weights: Path) -> None:
    assert repository.publish(weights) == 0
    entry = packaged_weights()[NAME]
    assert hashlib.sha256(entry.path.read_bytes()).hexdigest() == entry.sha256
    assert entry.file == f"{NAME}-{entry.sha256[:8]}.safetensors"
    assert (entry.num_classes, entry.input_size, entry.classes) == (4, 32, CLASSES)
    assert (entry.mean, entry.std) == ((0.4,) * 3, (0.2,) * 3)
    assert entry.fingerprint == gemnet.genome_for(ARCH).fingerprint
    with safe_open(entry.path, "pt") as file:
        assert file.metadata()["genome"] == entry.fingerprint
    (result,) = load_results(repository.zoo)
    assert result.values == (50.5, 52.5, 51.5)
    assert (result.macs, result.params, result.epochs) == (6_000_000, 50_000, 7)
    assert result.speed is not None
    assert 0 < result.speed.seconds < 1


def test_half_precision_keeps_norms_exact_and_is_what_is_measured(repository: Repository, weights: Path) -> None:
    assert repository.publish(weights) == 0
    entry, original = packaged_weights()[NAME], load_file(weights)
    for key, value in load_file(entry.path).items():
        if original[key].ndim > 1:
            assert value.dtype == torch.float16
            torch.testing.assert_close(value.float(), original[key], rtol=1e-3, atol=1e-4)
        else:
            assert torch.equal(value, original[key])
    value = measure_accuracy(NAME, entry, str(repository.images), repository.zoo / "log.jsonl")
    (result,) = load_results(repository.zoo)
    assert result.weights_value == pytest.approx(value, abs=1e-4)
    assert result.precision == "float16"
    assert 0 < value < 100, "this test can't fail"
    assert "float16" in (repository.zoo / "README.md").read_text()
    full = draw_weights(weights.with_name("again.safetensors"))
    assert repository.publish(full, "--precision", "float32") == 0
    assert all(v.dtype != torch.float16 for v in load_file(packaged_weights()[NAME].path).values())


def test_publishing_again_replaces_the_file(repository: Repository, weights: Path) -> None:
    assert repository.publish(weights) == 0
    first = packaged_weights()[NAME].path
    (before,) = load_results(repository.zoo)
    assert repository.publish(weights, "--precision", "float32") == 0
    (after,) = load_results(repository.zoo)
    assert after.speed == before.speed  # the network is the same, and times are of one run
    assert packaged_weights()[NAME].path.is_file()
    assert not first.exists()
    assert repository.run("check") == 0
    assert repository.run("withdraw", NAME) == 0
    assert not packaged_weights()
    assert repository.run("check") == 0
    assert "No weights are published yet" in (repository.zoo / "README.md").read_text()


def test_opening_the_test_images_is_logged(repository: Repository, weights: Path) -> None:
    assert repository.publish(weights) == 0
    (line,) = (repository.zoo / "test_openings.jsonl").read_text().splitlines()
    assert json.loads(line)["images"] == 40
    assert NAME in json.loads(line)["purpose"]


def test_checkpoint_of_the_training_tool_is_published_too(repository: Repository, weights: Path) -> None:
    state = {f"network.{key}": value for key, value in load_file(weights).items()}
    checkpoint = weights.with_name("epoch_3.pth")
    torch.save({"state_dict": state, "meta": {"epoch": 3}}, checkpoint)
    assert repository.publish(checkpoint) == 0
    assert packaged_weights()[NAME].mean == tuple(timm.get_pretrained_cfg(ARCH).mean)


def test_tables_metafile_and_card_are_made_from_the_logs(
    repository: Repository, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert repository.publish(weights) == 0
    assert repository.run("record", "mobilenetv2.tints", "--peer", *repository.row) == 0
    detector = ("--detector", "RetinaNet", "--data", "Boxes", "--source", "boxes", "--resolution", "64")
    log = ("--log", "model_zoo/logs/detector.json", "--config", "configs/tints.py")
    assert repository.run("record", "gemnet_a.boxes", *detector, *log) == 2
    assert "Give --macs and --params" in capsys.readouterr().err
    assert repository.run("record", "gemnet_a.boxes", *detector, *log, "--macs", "100", "--params", "50") == 0
    readme = (repository.zoo / "README.md").read_text()
    assert f"[`{NAME}`]({NAME}.md) | 51.50 ± 1.00 | 3 | 7 |  | 6 | 50 |" in readme
    assert "mobilenetv2, *measured here* | 48.25 | 1 | 7 |  | 7 | 60 |" in readme
    assert "| RetinaNet | `gemnet_a` | Boxes, 64 px | 12.30 | 30 |  | 1 |  |" in readme
    assert "../docs/search.md" in readme
    meta = yaml.safe_load((repository.zoo / "metafile.yml").read_text())
    assert [model["Name"] for model in meta["Models"]] == [NAME, "RetinaNet gemnet_a.boxes"]
    own, boxes = meta["Models"]
    assert own["In Collection"] == meta["Collections"][0]["Name"]
    assert own["Results"][0]["Metrics"]["Top 1 Accuracy"] == 51.5
    assert own["Weights"] == f"gemnet/weights/{packaged_weights()[NAME].file}"
    assert boxes["Results"][0] == {"Task": "Object Detection", "Dataset": "Boxes", "Metrics": {"box AP": 12.3}}
    assert yaml.safe_load((repository.root / "model-index.yml").read_text()) == {"Import": ["model_zoo/metafile.yml"]}
    card = (repository.zoo / f"{NAME}.md").read_text()
    for words in ("51.50 ± 1.00 %", "blue, green, grey, red", "Limitations", "mobilenetv2, measured here"):
        assert words in card
    assert repository.run("check") == 0


def test_a_detectors_row_is_that_of_its_method_in_the_table_of_a_comparison(repository: Repository) -> None:
    (repository.root / "model_zoo/logs/coco.csv").write_text(
        "detector,network,phase,seed,epochs,coco/bbox_mAP,coco/bbox_mAP_50,coco/person_mAP_50,macs,params,seconds\n"
        "FasterRCNN,gemnet_a,test,0,9,0.5,0.6,0.7,1e8,5e5,0.2\n"
        "RetinaNet,gemnet_a,training,0,9,0.3,0.5,0.7,1e8,5e5,0.1\n"
        "RetinaNet,gemnet_a,test,0,9,0.1,0.2,0.4,1e8,5e5,0.1\n"
        "RetinaNet,gemnet_a,test,1,9,0.2,0.3,0.5,1e8,5e5,0.1\n"
    )
    about = ("--detector", "RetinaNet", "--data", "Boxes", "--source", "boxes", "--resolution", "64")
    log = ("--log", "model_zoo/logs/coco.csv", "--config", "configs/tints.py")
    assert repository.run("record", "gemnet_a.boxes_retinanet", *about, *log) == 0
    text = (repository.zoo / "README.md").read_text()
    assert "| RetinaNet | `gemnet_a` | Boxes, 64 px | 15.00 ± 7.07 | 25 | 45 | 2 | 9 | 100 | 500 | 0.1 |" in text
    assert repository.run("check") == 0


def test_accuracy_is_reproduced_from_the_weights(repository: Repository, weights: Path) -> None:
    assert repository.publish(weights) == 0
    assert repository.run("check", "--accuracy", NAME) == 0
    (result,) = load_results(repository.zoo)
    path = repository.zoo / "results" / f"{NAME}.json"
    text = path.read_text().replace(f'"weights_value": {result.weights_value}', '"weights_value": 77.0')
    path.write_text(text)
    assert repository.run("tables") == 0
    assert repository.run("check") == 0, "all agree on a wrong figure"
    assert repository.run("check", "--accuracy", NAME) == 1


@pytest.mark.parametrize(
    ("path", "change", "words"),
    [
        ("model_zoo/README.md", lambda text: text.replace("51.50", "61.50"), "README.md is not what the results give"),
        ("model_zoo/metafile.yml", lambda text: text.replace("51.5", "61.5"), "metafile.yml is not"),
        (f"model_zoo/{NAME}.md", lambda text: text + "And more.", f"{NAME}.md is not"),
        ("model_zoo/logs/tints.csv", lambda text: text.replace("50.5", "55.5"), "the log model_zoo/logs/tints.csv has"),
        ("model_zoo/logs/tints.csv", lambda text: text.replace(",test,", ",tested,"), "no row with"),
        (f"model_zoo/results/{NAME}.json", lambda text: text.replace("50.5", "59.5"), "its figures are (59.5"),
        (f"model_zoo/results/{NAME}.json", lambda text: text.replace('"macs"', '"mac"'), "no config key mac"),
        ("configs/tints.py", None, "its config configs/tints.py is not in the repository"),
    ],
)
def test_check_finds_what_disagrees(
    path: str, change, words: str, repository: Repository, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert repository.publish(weights) == 0
    file = repository.root / path
    if change is None:
        file.unlink()
    else:
        assert change(file.read_text()) != file.read_text()
        file.write_text(change(file.read_text()))
    assert repository.run("check") == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value"), [("mean", [0.1, 0.1, 0.1]), ("input_size", 224), ("crop_pct", 0.5), ("interpolation", "nearest")]
)
def test_check_finds_an_index_that_says_otherwise_than_the_file(
    key: str, value: object, repository: Repository, weights: Path
) -> None:
    assert repository.publish(weights) == 0
    assert problems(repository.zoo) == []
    index = gemnet.weights.FOLDER / "index.json"
    entries = json.loads(index.read_text())
    assert entries[NAME][key] != value
    entries[NAME][key] = value
    index.write_text(json.dumps(entries))
    packaged_weights.cache_clear()
    found = problems(repository.zoo)
    assert any(f"say different things of {key}" in problem for problem in found), found


def test_check_finds_damaged_missing_and_stray_weights(repository: Repository, weights: Path) -> None:
    assert repository.publish(weights) == 0
    entry = packaged_weights()[NAME]
    whole = entry.path.read_bytes()
    entry.path.write_bytes(whole[:-100])
    assert any("damaged" in problem for problem in problems(repository.zoo))
    entry.path.unlink()
    assert any("can't be read" in problem for problem in problems(repository.zoo))
    entry.path.write_bytes(whole)
    (gemnet.weights.FOLDER / "stray.safetensors").write_bytes(whole)
    (repository.zoo / "stray.md").write_text("")
    assert any("stray.safetensors is in no index" in problem for problem in problems(repository.zoo))
    (gemnet.weights.FOLDER / "stray.safetensors").unlink()
    assert problems(repository.zoo) == ["model_zoo/stray.md belongs to no published weights. Delete it."]


def test_bad_weights_are_refused_and_leave_nothing(
    repository: Repository, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weights.read_bytes()[:5000])
    refused(capsys, repository.publish(cut), "cut.safetensors", "Is the file complete?")
    other = draw_weights(tmp_path / "other.safetensors", genome="0" * 16)
    refused(capsys, repository.publish(other), "belongs to another genome", ARCH)
    wider = draw_weights(
        tmp_path / "wider.safetensors", arch="gemnet_b_cifar", genome=gemnet.genome_for(ARCH).fingerprint
    )
    refused(capsys, repository.publish(wider), "does not fit", "of another shape")
    state = load_file(weights)
    save_file({**state, "classifier.bias": state["classifier.bias"] * float("nan")}, tmp_path / "nan.safetensors")
    refused(capsys, repository.publish(tmp_path / "nan.safetensors"), "classifier.bias is not finite")
    large = {**state, "classifier.weight": state["classifier.weight"] * 1e6}
    save_file(large, tmp_path / "large.safetensors")
    refused(capsys, repository.publish(tmp_path / "large.safetensors"), "not finite in float16")
    three = draw_weights(tmp_path / "three.safetensors", classes=3)
    refused(capsys, repository.publish(three), "3 classes", "has 4")
    refused(capsys, repository.publish(tmp_path / "no.safetensors"), "no such file")
    rows = ("--rows", f"network={ARCH}", "phase=test")
    refused(capsys, repository.publish(weights, *rows, name="zoo_test_net2.tints"), "Unknown architecture", ARCH)
    refused(capsys, repository.publish(weights, name=ARCH), "<network>.<tag>")
    assert [path.name for path in gemnet.weights.FOLDER.iterdir()] == ["index.json"]
    assert not packaged_weights()
    assert not load_results(repository.zoo)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--log", "model_zoo/logs/none.csv"], ["none.csv", "no such file in the repository"]),
        (["--log", "work_dirs/tints/trainings.csv"], ["not a file that is kept", "model_zoo/logs"]),
        (["--column", "acuracy"], ["acuracy", "Did you mean 'accuracy'"]),
        (["--rows", "network=gemnet_x"], ["no row with network=gemnet_x", "mobilenetv2"]),
        (["--config", "configs/none.py"], ["--config configs/none.py"]),
        (["--column", "phase"], ["phase is 'choice', which is no figure"]),
    ],
)
def test_figures_that_stand_in_no_log_are_refused(
    options: list[str], words: list[str], repository: Repository, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--rows"] if options == ["--column", "phase"] else []
    refused(capsys, repository.publish(weights, *options, *more), *words)


def test_unknown_tags_list_those_that_exist(
    repository: Repository, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, repository.run("folder", "zoo_test_net.tint"), "carries no weights yet")
    assert repository.publish(weights) == 0
    refused(capsys, repository.run("folder", "gemnet_b.tints"), f"There are: {NAME}")
    refused(capsys, repository.run("check", "--accuracy", "zoo_test_net.tint"), NAME)


def test_speed_is_cpu_time_of_one_thread() -> None:
    torch.manual_seed(0)
    small, large = (timm.create_model(name, num_classes=10) for name in ("gemnet_a_cifar", "gemnet_c_cifar"))
    threads = torch.get_num_threads()
    first, second = measure_speeds([(model, 32, 3) for model in (small, large)], batch_size=8, rounds=3)
    assert torch.get_num_threads() == threads
    assert 0 < first.seconds < second.seconds
    if first.onnxruntime:
        assert 0 < first.onnx_single < second.onnx_single
        assert first.onnx_bytes < second.onnx_bytes
    assert first.processor


def test_speed_command_builds_peers_of_a_comparison(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    (repository.root / "configs/comparison").mkdir()
    (repository.root / "configs/comparison/tints.py").write_text(
        f"data = dict(source={str(repository.images)!r}, resolution=32)\n"
        f"networks = [dict(type='gemnet', arch={ARCH!r}), dict(type='mobilenetv2')]\n"
        f"reference = {ARCH!r}\nepochs = 1\nlrs = [0.1]\n"
    )
    row = [*repository.row[:-1], "configs/comparison/tints.py"]
    assert repository.run("record", "mobilenetv2.tints", "--peer", *row) == 0
    assert repository.run("speed") == 0
    (result,) = load_results(repository.zoo)
    assert result.speed is not None
    assert f"{1000 * result.speed.seconds:.3g}" in (repository.zoo / "README.md").read_text()
    assert repository.run("speed", "no_such.row") == 2
    assert "The zoo has no classifier or published detector 'no_such.row'." in capsys.readouterr().err
    assert repository.run("check") == 0


def rows_of(*epochs: int) -> list[Result]:
    whole = Result(
        "net.tints",
        "classification",
        "Tints",
        "tints",
        32,
        (50.0,),
        Figures("log.csv", "accuracy"),
        1000,
        10,
        "config.py",
    )
    return [
        replace(whole, name=f"net{n}.tints", epochs=each, speed=Speed(0.001 * (1 + n), 32, "a processor", "2"))
        for n, each in enumerate(epochs)
    ]


def test_rows_of_another_number_of_epochs_are_marked_in_table_and_picture(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("accuracy\n50\n")
    text = readme(rows_of(20, 20, 60), tmp_path)
    lines = [line for line in text.splitlines() if line.startswith("| `net")]
    assert [line.split("|")[4].strip() for line in lines] == ["20", "20", "60†"]
    assert "another number of epochs than 20" in text
    assert "†" not in readme(rows_of(20, 20), tmp_path)
    draw_zoo(rows_of(20, 20, 60), tmp_path / PICTURE)
    assert "hollow: 60" in (tmp_path / PICTURE).read_text()


def test_picture_of_other_results_is_noticed(tmp_path: Path) -> None:
    assert not is_current(rows_of(20), tmp_path / PICTURE)
    draw_zoo(rows_of(20), tmp_path / PICTURE)
    assert is_current(rows_of(20), tmp_path / PICTURE)
    assert not is_current(rows_of(21), tmp_path / PICTURE)
    first = (tmp_path / PICTURE).read_bytes()
    draw_zoo(rows_of(20), tmp_path / PICTURE)
    assert (tmp_path / PICTURE).read_bytes() == first


def test_zoo_of_this_repository_agrees_with_its_files() -> None:
    assert problems(REPOSITORY / "model_zoo") == []


@pytest.mark.slow
@pytest.mark.contract
def test_accuracy_of_published_weights_is_reproduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [result for result in load_results(REPOSITORY / "model_zoo") if result.weights]
    if not rows:
        pytest.skip("no weights are published yet: python tools/zoo.py publish")
    row = min(rows, key=lambda result: result.macs * result.resolution**2)
    root = Path(os.environ.get("GEMNET_DATA", "data"))
    if not (root / row.source).is_dir():
        pytest.skip(f"needs {row.data}: unpack it to data/{row.source} or set GEMNET_DATA")
    monkeypatch.setenv("GEMNET_CACHE", str(tmp_path / "cache"))
    value = measure_accuracy(row.name, packaged_weights()[row.name], row.source, tmp_path / "openings.jsonl")
    assert row.weights_value is not None
    assert value == pytest.approx(row.weights_value, abs=TOLERANCE)


def test_network_built_for_a_measurement_is_the_stored_one(repository: Repository, weights: Path) -> None:
    assert repository.publish(weights, "--precision", "float32") == 0
    state = build(NAME, packaged_weights()[NAME]).state_dict()
    assert all(torch.equal(state[key], value) for key, value in load_file(weights).items())


@pytest.mark.parametrize("command", [["tables"], ["speed"], ["withdraw", "gemnet_a.imagenette96"]])
def test_a_command_where_no_zoo_is_says_so_and_changes_nothing(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in gemnet.weights.FOLDER.iterdir() if path.is_file()}
    refused(capsys, zoo_command.main(["--zoo", str(tmp_path / "model_zoo"), *command]), "there is no zoo")
    assert {path: path.read_bytes() for path in gemnet.weights.FOLDER.iterdir() if path.is_file()} == before
    assert not (tmp_path / "model_zoo").exists()

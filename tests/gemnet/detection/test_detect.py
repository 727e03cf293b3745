"""`gemnet-detect`: the boxes that MMDetection finds, drawn and written as COCO has them; what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import gemnet.detection  # stands in for what MMCV would have to compile

pytest.importorskip("mmdet", reason="MMDetection is not installed: pip install '.[detection]'")

from drawn_shapes import draw_shapes, write_config
from PIL import Image
from safetensors.torch import save_file
from test_detector_training import train

from gemnet.checkpoint import load_checkpoint, plain_config
from gemnet.detection.dataset import survey_orientation
from gemnet.metadata import Metadata, read_metadata, save_weights
from gemnet.trained import TrainedError, find_trained
from nas.commands import detect


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn shapes, and a detector trained on them for an epoch, in ``run``."""
    folder = tmp_path_factory.mktemp("project")
    draw_shapes(folder / "shapes", images=9, side=64)
    write_config(folder)
    torch.set_num_threads(1)
    # After an epoch no score is high: all are let through.
    assert train(folder, folder / "run", "model.test_cfg.score_thr=0.0", "model.test_cfg.max_per_img=20") == 0
    return folder


def test_results_are_those_of_mmdetection_in_cocos_form(project: Path, tmp_path: Path) -> None:
    from mmdet.apis import inference_detector, init_detector

    images = sorted((project / "shapes").glob("*.jpg"))[:2]
    annotations = project / "shapes/instances.json"
    arguments = [str(project / "run"), *map(str, images), "--annotations", str(annotations), "--score", "0"]
    code = detect.main([*arguments, "--out", str(tmp_path / "out")])
    assert code == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 2
    with Image.open(next((tmp_path / "out").glob("*.jpg"))) as picture:
        assert picture.size == (64, 64)

    known = json.loads(annotations.read_text())
    ids = {image["file_name"]: image["id"] for image in known["images"]}
    model = init_detector(str(project / "run/own.py"), str(next((project / "run").glob("best*.pth"))), device="cpu")
    for image in images:
        theirs = inference_detector(model, str(image)).pred_instances
        ours = [each for each in results if each["image_id"] == ids[image.name]]
        assert len(ours) == len(theirs.scores) > 0
        assert [each["score"] for each in ours] == pytest.approx(
            theirs.scores.sort(descending=True)[0].tolist(), abs=1e-4
        )
        best = int(theirs.scores.argsort(descending=True, stable=True)[0])
        left, top, right, bottom = theirs.bboxes[best].tolist()
        assert ours[0]["bbox"] == pytest.approx([left, top, right - left, bottom - top], abs=0.02)
        assert ours[0]["category_name"] == ("square", "disc")[int(theirs.labels[best])]

    from pycocotools.coco import COCO

    assert COCO(str(annotations)).loadRes(str(tmp_path / "out/results.json")).getAnnIds()


def annotation_file(path: Path, *images: tuple[int, str, int, int]) -> str:
    listed = [{"id": n, "file_name": name, "width": width, "height": height} for n, name, width, height in images]
    categories = [{"id": 7, "name": "square"}, {"id": 9, "name": "disc"}]
    path.write_text(json.dumps({"images": listed, "annotations": [], "categories": categories}))
    return str(path)


def test_images_of_one_name_are_told_apart_by_their_folders(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = sorted((project / "shapes").glob("*.jpg"))[:2]
    for folder, image in (("cam1", first), ("cam2", second)):
        (tmp_path / folder).mkdir()
        shutil.copy(image, tmp_path / folder / "0001.jpg")
    both = annotation_file(tmp_path / "a.json", (5, "cam1/0001.jpg", 64, 64), (3, "cam2/0001.jpg", 64, 64))
    common = [str(project / "run"), "--score", "0", "--no-pictures"]
    photos = [str(tmp_path / folder / "0001.jpg") for folder in ("cam2", "cam1")]
    assert detect.main([*common, *photos, "--annotations", both, "--out", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert {(each["image_id"], each["file_name"]) for each in results} == {(5, "cam1/0001.jpg"), (3, "cam2/0001.jpg")}
    single = annotation_file(tmp_path / "b.json", (5, "0001.jpg", 64, 64))
    assert detect.main([*common, *photos, "--annotations", single, "--out", str(tmp_path / "none")]) == 2
    assert "lists one image for both" in capsys.readouterr().err
    elsewhere = annotation_file(tmp_path / "c.json", (5, "x/0001.jpg", 64, 64), (3, "y/0001.jpg", 64, 64))
    assert detect.main([*common, photos[0], "--annotations", elsewhere, "--out", str(tmp_path / "none")]) == 2
    assert "lists 'x/0001.jpg' and 'y/0001.jpg'" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_boxes_are_those_of_the_image_as_its_annotations_have_it(project: Path, tmp_path: Path) -> None:
    pixels = Image.open(next((project / "shapes").glob("*.jpg"))).crop((0, 0, 64, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    pixels.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    Image.open(tmp_path / "turned.jpg").convert("RGB").save(tmp_path / "stored.png", exif=Image.Exif())
    boxes = []
    for name, size in (("turned.jpg", (64, 40)), ("stored.png", (64, 40)), ("turned.jpg", (40, 64))):
        listed = annotation_file(tmp_path / "a.json", (1, name, *size))
        arguments = [str(project / "run"), str(tmp_path / name), "--annotations", listed, "--score", "0"]
        assert detect.main([*arguments, "--out", str(tmp_path / "out")]) == 0
        boxes.append([each["bbox"] for each in json.loads((tmp_path / "out/results.json").read_text())])
        with Image.open(tmp_path / f"out/0000_{Path(name).stem}.jpg") as picture:
            assert picture.size == size
    assert boxes[0] == boxes[1] != boxes[2]


def test_images_before_and_after_a_bad_one_are_looked_at(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(next((project / "shapes").glob("*.jpg")), tmp_path / "a.jpg")
    shutil.copy(tmp_path / "a.jpg", tmp_path / "c.jpg")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:200])
    files = [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg")]
    assert detect.main([str(project / "run"), *files, "--score", "0", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "1 of 3 images can't be read:" in said
    assert "b.jpg: the image is truncated" in said
    results = json.loads((tmp_path / "out/results.json").read_text())
    found = [[each["bbox"] for each in results if each["file_name"] == files[number]] for number in (0, 2)]
    assert found[0] == found[1] != []
    assert {each["image_id"] for each in results} == {1, 3}

    assert detect.main([str(project / "run"), files[1], "--out", str(tmp_path / "none")]) == 2
    assert "b.jpg: the image is truncated" in capsys.readouterr().err
    assert not list((tmp_path / "none").iterdir())


def test_images_of_one_size_either_way_are_looked_at_as_the_evaluation_does(project: Path, tmp_path: Path) -> None:
    pixels = Image.open(next((project / "shapes").glob("*.jpg"))).crop((0, 0, 64, 40))
    for name, turned in (("a.jpg", 6), ("b.jpg", 3)):  # by a quarter, which the size shows; by a half
        exif = Image.Exif()
        exif[0x0112] = turned
        pixels.save(tmp_path / name, exif=exif, quality=95)
    (tmp_path / "c.jpg").write_bytes(b"no image")
    boxes = []
    for size in ((64, 40), (40, 64)):
        listed = annotation_file(
            tmp_path / "l.json", (1, "a.jpg", *size), (2, "b.jpg", 64, 40), (3, "c.jpg", 64, 40), (4, "d.jpg", 64, 40)
        )
        upright = survey_orientation(
            [{"file_name": "a.jpg", "width": size[0], "height": size[1]}], str(tmp_path), "l.json"
        )
        assert upright == (size == (40, 64))
        arguments = [str(project / "run"), str(tmp_path / "b.jpg"), "--annotations", listed, "--score", "0"]
        assert detect.main([*arguments, "--no-pictures", "--out", str(tmp_path / "out")]) == 0
        boxes.append([each["bbox"] for each in json.loads((tmp_path / "out/results.json").read_text())])
    assert boxes[0] != boxes[1]
    plain = tmp_path / "b.png"
    with Image.open(tmp_path / "b.jpg") as image:
        image.convert("RGB").save(plain, exif=Image.Exif())  # as it is stored
    assert detect.main([str(project / "run"), str(plain), "--score", "0", "--out", str(tmp_path / "out")]) == 0
    assert boxes[0] == [each["bbox"] for each in json.loads((tmp_path / "out/results.json").read_text())]


def test_results_belong_to_images_of_a_list_that_pycocotools_reads(project: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    photo = next((project / "shapes").glob("*.jpg"))
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        shutil.copy(photo, tmp_path / folder / "a.jpg")
    files = [str(tmp_path / folder / "a.jpg") for folder in ("one", "two")]
    common = [str(project / "run"), *files, "--no-pictures", "--out", str(tmp_path / "out")]
    assert detect.main([*common, "--score", "0"]) == 0
    images = json.loads((tmp_path / "out/images.json").read_text())
    assert images["images"] == [
        {"id": number, "file_name": file, "width": 64, "height": 64} for number, file in enumerate(files, 1)
    ]
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert {(each["image_id"], each["file_name"]) for each in results} == set(enumerate(files, 1))
    loaded = COCO(tmp_path / "out/images.json").loadRes(str(tmp_path / "out/results.json"))
    assert len(loaded.getAnnIds()) == len(results)
    assert detect.main([*common, "--score", "1"]) == 0
    assert json.loads((tmp_path / "out/results.json").read_text()) == []
    assert json.loads((tmp_path / "out/images.json").read_text()) == images


def test_a_device_that_is_not_there_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    for device in ["nonsense", "meta", *([] if torch.cuda.is_available() else ["cuda", "cuda:1"])]:
        arguments = ["gemnet_a.coco320_faster_rcnn", str(tmp_path / "a.png"), "--device", device]
        assert detect.main([*arguments, "--out", str(tmp_path / "out")]) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert f"--device '{device}' can't be used on this machine: " in said[0]
    assert not (tmp_path / "out").exists()


def test_checkpoint_says_what_it_is(project: Path) -> None:
    file = next((project / "run").glob("best*.pth"))
    about = read_metadata(file)
    assert about.classes == ("square", "disc")
    assert about.notes["detector"] == "RetinaNet"
    config = plain_config(load_checkpoint(file)["meta"]["cfg"])
    assert config is not None
    expected = config["model"]["data_preprocessor"]["mean"]
    assert about.mean == pytest.approx([value / 255 for value in expected], abs=1e-5)
    with pytest.raises(TrainedError, match="holds a detector"):
        find_trained(file)


def test_a_safetensors_file_is_used_with_the_trainings_config(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = load_checkpoint(next((project / "run").glob("best*.pth")))
    save_file(checkpoint["state_dict"], tmp_path / "w.safetensors")
    image = str(next((project / "shapes").glob("*.jpg")))
    arguments = [image, "--score", "0", "--no-pictures", "--out"]
    assert detect.main([str(project / "run"), *arguments, str(tmp_path / "one")]) == 0
    assert detect.main([str(tmp_path / "w.safetensors"), *arguments, str(tmp_path / "none")]) == 2
    assert "--config" in capsys.readouterr().err
    config = ["--config", str(project / "run/own.py")]
    assert detect.main([str(tmp_path / "w.safetensors"), *config, *arguments, str(tmp_path / "two")]) == 0
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    assert one == two
    save_file(checkpoint["state_dict"], tmp_path / "w.safetensors", {"genome": "0123456789abcdef"})
    assert detect.main([str(tmp_path / "w.safetensors"), *config, *arguments, str(tmp_path / "none")]) == 2
    assert "trained with genome 0123456789abcdef" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["foreign type", "no config", "another detector", "no image"])
def test_what_cannot_be_used_is_one_message(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    checkpoint: dict[str, Any] = load_checkpoint(next((project / "run").glob("best*.pth")))
    meta, word = checkpoint["meta"], ""
    if damage == "foreign type":
        meta["cfg"] += "\nhook = dict(type='os.system', command='touch trap')\n"
        word = "--config"
    elif damage == "no config":
        del meta["cfg"]
        word = "--config"
    elif damage == "another detector":
        checkpoint["state_dict"] = {"weight": torch.zeros(3)}
        word = "another detector"
    image = tmp_path / "a.png"
    Image.new("RGB", (32, 32)).save(image)
    if damage == "no image":
        image, word = tmp_path / "missing.png", "missing.png"
    torch.save(checkpoint, tmp_path / "damaged.pth")
    code = detect.main([str(tmp_path / "damaged.pth"), str(image), "--out", str(tmp_path / "out")])
    assert code == 2
    assert word in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_classifier_is_called_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    genome, work = gemnet.genome_for("gemnet_a_cifar"), tmp_path / "work"
    save_weights(work / "best.safetensors", gemnet.GEMNet(genome).state_dict(), Metadata(genome=genome))
    genome.save(work / "best.json")
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    for source in (work, work / "best.safetensors"):
        assert detect.main([str(source), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]) == 2
        assert f"{source} holds a classifier, which finds no boxes. gemnet-predict" in capsys.readouterr().err

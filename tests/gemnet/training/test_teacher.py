"""Distillation: whom a training can learn from, what the teacher sees, and what is refused."""

import copy
from dataclasses import replace

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from gemnet.checkpoint import CheckpointError, aligned
from gemnet.data.datasets import DataSpec
from gemnet.metadata import Metadata, save_weights
from gemnet.training.images import load_data
from gemnet.training.loop import train
from gemnet.training.recipe import Recipe
from gemnet.training.teacher import Distillation, Teacher, TeacherError

WNIDS = ("n01440764", "n02102040", "n02979186")
MEAN, STD = (torch.full((1, 3, 1, 1), value) for value in (0.4, 0.3))


def saved(path, name="test_resnet.r160_in1k", classes=10, **about):
    """Weights of a small network of timm's, with what they say about themselves."""
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=classes).eval()
    known = Metadata(arch=name.split(".")[0], num_classes=classes, input_size=32, mean=(0.5,) * 3, std=(0.25,) * 3)
    save_weights(path, network.state_dict(), known.replace(**about))
    return network


def test_teacher_sees_the_students_images_as_it_was_trained_to(tmp_path):
    network = saved(tmp_path / "w.safetensors")
    teacher = Teacher(Distillation(str(tmp_path / "w.safetensors")), [str(i) for i in range(10)], 3)
    pixels = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        expected = network((pixels - 0.5) / 0.25)
    assert torch.allclose(teacher.logits((pixels - MEAN) / STD, MEAN, STD), expected, atol=1e-4)
    larger = F.interpolate(pixels, (64, 64), mode="bilinear")
    assert teacher.logits(larger, MEAN, STD).shape == (4, 10)
    small = Teacher(Distillation(str(tmp_path / "w.safetensors"), side=16), [str(i) for i in range(10)], 3)
    assert not torch.allclose(small.logits((pixels - MEAN) / STD, MEAN, STD), expected, atol=1e-4)


def test_teacher_of_the_package_and_grey_images():
    teacher = Teacher(Distillation("gemnet_a.imagenette96"), ["n01440764"], 1)
    assert teacher.side == 96
    assert teacher.logits(torch.zeros(2, 1, 8, 8), torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)).shape == (2, 1)


def test_classes_are_found_by_name_whatever_their_order(tmp_path):
    network = saved(tmp_path / "w.safetensors", classes=3)
    save_weights(
        tmp_path / "w.safetensors",
        network.state_dict(),
        Metadata(arch="test_resnet", num_classes=3, mean=(0.5,) * 3, std=(0.5,) * 3, classes=("cat", "dog", "eel")),
    )
    pixels = torch.rand(2, 3, 160, 160)
    teacher = Teacher(Distillation(str(tmp_path / "w.safetensors")), ["eel", "cat"], 3)
    half = torch.full((1, 3, 1, 1), 0.5)
    with torch.no_grad():
        assert torch.allclose(teacher.logits(pixels, half, half), network(pixels)[:, [2, 0]], atol=1e-5)


def test_classes_of_imagenet_are_found_by_their_wordnet_names(tmp_path):
    saved(tmp_path / "w.safetensors", classes=1000)
    teacher = Teacher(Distillation(str(tmp_path / "w.safetensors")), WNIDS, 3)
    assert teacher.places.tolist() == [0, 217, 482]


def test_weights_of_a_timm_name_are_given_by_a_file_with_another_head_too(tmp_path):
    network = timm.create_model("test_resnet", num_classes=7)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "w.pth")
    options = Distillation("test_resnet", checkpoint=str(tmp_path / "w.pth"))
    teacher = Teacher(options, [str(i) for i in range(7)], 3)
    for key, value in network.state_dict().items():
        assert torch.equal(teacher.network.state_dict()[key], value)


def test_same_weights_elsewhere_are_the_same_teacher(tmp_path):
    saved(tmp_path / "w.safetensors")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/other.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes())
    here = Recipe(teacher=str(tmp_path / "w.safetensors"))
    there = Recipe(teacher=Distillation(str(tmp_path / "copy/other.safetensors")))
    assert here.identity() == there.identity() != Recipe().identity()
    assert replace(there, teacher=Distillation(here.teacher, weight=0.9)).identity() != here.identity()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"network": "gemnet_q"}, TeacherError, "no teacher 'gemnet_q'"),
        (
            {"network": "test_resnet", "checkpoint": "missing.pth"},
            CheckpointError,
            "missing.pth: there is no",
        ),
        ({"network": "gemnet_a.imagenette96"}, TeacherError, "10 classes apart, the images have 2"),
        ({"network": "gemnet_a.imagenette96", "classes": (1, 10)}, TeacherError, "from 0 to 9"),
        ({"network": "gemnet_a.imagenette96", "weight": 1.5}, TeacherError, "teacher.weight lies between"),
        ({"network": "gemnet_a.imagenette96", "temperature": 0}, TeacherError, "teacher.temperature lies between"),
    ],
)
def test_teacher_that_cannot_teach_is_refused(options, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        Teacher(Distillation(**options), ["cat", "dog"], 3)


def test_loss_is_the_labels_without_weight_and_zero_divergence_from_itself(tmp_path):
    saved(tmp_path / "w.safetensors")
    logits, label_loss = torch.randn(5, 10), torch.tensor(2.0)
    for weight in (0.0, 0.25, 1.0):
        teacher = Teacher(Distillation(str(tmp_path / "w.safetensors"), weight=weight), list("0123456789"), 3)
        assert float(teacher.loss(label_loss, logits, logits)) == pytest.approx((1 - weight) * 2, abs=1e-5)
        assert copy.deepcopy(teacher) is teacher
    assert float(teacher.loss(label_loss, logits, torch.randn(5, 10))) > 0.1


def test_student_comes_nearer_to_its_teacher_than_by_labels_alone(tmp_path):
    torch.set_num_threads(1)
    data = load_data(DataSpec("digits", dev_fraction=0.5))
    network = saved(tmp_path / "w.safetensors", in_chans=3)

    def student():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 10))

    def distance(model):
        pixels = data.images[data.dev[:100]].float() / 255
        with torch.no_grad():
            taught = network((F.interpolate(pixels, (32, 32), mode="bilinear").expand(-1, 3, -1, -1) - 0.5) / 0.25)
            found = model((pixels - data.mean[0]) / data.std[0])
        return float(F.kl_div(found.log_softmax(1), taught.log_softmax(1), log_target=True, reduction="batchmean"))

    recipe = Recipe(batch_size=64, lr=0.05, flip=False, crop=0)
    plain, taught = student(), student()
    train(plain, data, recipe, 1, seed=0)
    train(taught, data, replace(recipe, teacher=Distillation(str(tmp_path / "w.safetensors"), weight=1.0)), 1, seed=0)
    assert distance(taught) < distance(plain) / 2


def test_efficientnet_pytorchs_weights_fit_timms_network():
    own = timm.create_model("tf_efficientnet_lite0").state_dict()
    outside = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    later = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
    later |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
    theirs, seen = {}, []
    for key, value in own.items():
        parts = key.split(".")
        if parts[0] != "blocks":
            theirs[".".join([outside[parts[0]], *parts[1:]])] = value
            continue
        if parts[1:3] not in seen:
            seen.append(parts[1:3])
        number = len(seen) - 1
        theirs[".".join(["_blocks", str(number), (later if number else first)[parts[3]], *parts[4:]])] = value
    found = aligned(theirs, own)
    assert found.keys() == own.keys()
    assert all(found[key] is own[key] for key in own)
    inside = aligned(theirs, [f"network.{key}" for key in own])
    assert set(inside) == {f"network.{key}" for key in own}

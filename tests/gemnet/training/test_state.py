"""A training that was ended in the middle, however, goes on and comes to the same weights, bit for bit."""

import os
import signal
from dataclasses import replace

import pytest
import torch
from fork_server import fork_server
from torch import nn

from gemnet.data.datasets import DataSpec
from gemnet.stopping import STOP, Stopped, ask_to_stop, stop_file
from gemnet.training.images import at_fidelity, load_data
from gemnet.training.loop import train
from gemnet.training.recipe import Recipe
from gemnet.training.state import StateError

RECIPE = Recipe(
    batch_size=32,
    lr=0.05,
    flip=False,
    ema=0.9,
    schedule="cosine",
    scale=0.5,
    randaugment=5,
    mixup=0.2,
    cutmix=1.0,
    progressive=0.5,
)
EPOCHS = 4
STEPS = 6  # an epoch


class Network(nn.Module):
    """Small, with dropout; in training, step number ``end`` ends the process as kill -9 does."""

    def __init__(self, end=None):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.features = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
            self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(32, 10))
        self.end, self.steps = end, 0

    def forward(self, images):
        self.steps += self.training
        if self.steps == self.end:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.head(self.features(images))


def images():
    return at_fidelity(load_data(DataSpec("digits", dev_fraction=0.5)), subset=0.3)


def trained(keep=None, end=None, recipe=RECIPE, epochs=EPOCHS, seed=3, on_epoch=None, stop=None):
    torch.set_num_threads(1)
    model = Network(end)
    result = train(model, images(), recipe, epochs, seed, measure_every=1, on_epoch=on_epoch, keep=keep, stop=stop)
    return model, result


@pytest.fixture(scope="module")
def whole():
    return trained()


@pytest.mark.parametrize("end", [STEPS + 3, 3 * STEPS + 1])
def test_training_killed_in_the_middle_of_an_epoch_comes_to_the_same_weights_elsewhere(whole, tmp_path, end):
    here, there = tmp_path / "here/state.pth", tmp_path / "there/carried.pth"
    killed = fork_server().Process(target=trained, args=(here, end))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    there.parent.mkdir()
    here.rename(there)

    heard = []
    model, result = trained(there, on_epoch=heard.append)
    assert model.steps == (EPOCHS - end // STEPS) * STEPS  # no whole epoch was trained again
    assert result.history == whole[1].history == tuple(heard)
    assert result.accuracy == whole[1].accuracy
    for key, value in whole[0].state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key


def test_training_that_is_asked_to_stop_ends_with_its_epoch_and_goes_on_to_the_same_weights(whole, tmp_path):
    (tmp_path / STOP).touch()  # what a killed process left
    heard = []

    def ask(record):
        heard.append(record.epoch)
        if record.epoch == 2:
            assert ask_to_stop() == 1

    with stop_file(tmp_path) as stop, pytest.raises(Stopped, match="epoch 2 of 4"):
        trained(tmp_path / "state.pth", on_epoch=ask, stop=stop)
    assert heard == [1, 2]
    assert not stop.exists()
    assert ask_to_stop() == 0
    model, result = trained(tmp_path / "state.pth", stop=stop)
    assert model.steps == 2 * STEPS
    assert result.accuracy == whole[1].accuracy
    for key, value in whole[0].state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key


def test_the_last_epoch_of_a_training_and_one_that_is_not_kept_do_not_stop(tmp_path):
    (tmp_path / STOP).touch()
    trained(epochs=2, stop=tmp_path / STOP)
    trained(tmp_path / "state.pth", epochs=1, stop=tmp_path / STOP)


def test_finished_training_is_measured_again_only(whole, tmp_path):
    trained(tmp_path / "state.pth")
    model, result = trained(tmp_path / "state.pth")
    assert model.steps == 0
    assert (result.accuracy, result.history) == (whole[1].accuracy, whole[1].history)


@pytest.mark.parametrize(
    ("change", "word"),
    [({"epochs": 5}, "epochs"), ({"seed": 4}, "seed"), ({"recipe": replace(RECIPE, mixup=0.3)}, "recipe")],
)
def test_state_of_another_training_is_refused_by_what_differs(tmp_path, change, word):
    trained(tmp_path / "state.pth", epochs=1, **{key: value for key, value in change.items() if key != "epochs"})
    with pytest.raises(StateError, match=f"another training: its {word}"):
        trained(tmp_path / "state.pth", **{"epochs": 1, "seed": 3, **({} if word != "epochs" else change)})

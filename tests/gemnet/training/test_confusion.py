"""Figures of each class, and what is done about classes of unequal size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gemnet.data.datasets import DataSpec, imbalance_note
from gemnet.data.image_set import DataError
from gemnet.training.confusion import Confusion
from gemnet.training.images import TrainingData
from gemnet.training.loop import batches, confusion, evaluation_batch, measure, train
from gemnet.training.recipe import Recipe


def unequal(balance: str | None = None) -> TrainingData:
    """Grey images of two shades: 90 dark ones and 10 that are a little brighter."""
    rng = np.random.default_rng(0)
    labels = torch.tensor([0] * 90 + [1] * 10)
    shades = 100 + 20 * labels.numpy()[:, None, None, None] + rng.normal(0, 12, (100, 1, 6, 6))
    images = torch.from_numpy(shades.clip(0, 255).astype(np.uint8))
    everything = torch.arange(100)
    return TrainingData(
        images, labels, everything, everything, ("dark", "bright"), (0.4,), (0.1,), "0" * 16, balance=balance
    )


def test_confusion_counts_what_is_taken_for_what() -> None:
    found = Confusion.of([0, 0, 0, 1, 2], [0, 1, 1, 1, 0], ("a", "b", "c"))
    assert found.matrix.tolist() == [[1, 2, 0], [0, 1, 0], [1, 0, 0]]
    assert found.accuracy == pytest.approx(40.0)
    assert found.recall == pytest.approx([100 / 3, 100.0, 0.0])
    assert found.precision[:2] == pytest.approx([50.0, 100 / 3])
    assert np.isnan(found.precision[2])
    assert found.balanced_accuracy == pytest.approx(400 / 9)
    assert found.most_confused() == [("a", "b", 2), ("c", "a", 1)]


def test_a_class_without_images_is_no_part_of_balanced_accuracy() -> None:
    assert Confusion.of([0, 0], [0, 1], ("a", "b", "c")).balanced_accuracy == pytest.approx(50.0)


class Constant(nn.Module):
    """Takes every image for class 0."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([1.0, 0.0]).expand(len(images), 2)


def test_a_network_that_knows_the_largest_class_only_has_half_the_balanced_accuracy() -> None:
    found = confusion(Constant(), unequal())
    assert (found.accuracy, found.balanced_accuracy) == (90.0, 50.0)
    assert measure(Constant(), unequal()) == 90.0


def test_sampler_draws_each_class_equally_often() -> None:
    data, generator = unequal("sampler"), torch.Generator().manual_seed(0)
    recipe = Recipe(batch_size=10, crop=0)
    labels = [y for _ in range(20) for _, y in batches(data, 10, recipe, generator, torch.device("cpu"))]
    assert float(torch.cat(labels).float().mean()) == pytest.approx(0.5, abs=0.05)


def test_weights_make_the_classes_count_alike() -> None:
    weights = unequal("weights").class_weights()
    assert weights.tolist() == pytest.approx([100 / 180, 100 / 20])


@pytest.mark.parametrize("balance", ["sampler", "weights"])
def test_balance_finds_the_rare_class(balance: str) -> None:
    recipe = Recipe(batch_size=20, lr=0.05, crop=0, flip=False, label_smoothing=0)

    def trained(data: TrainingData) -> float:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
        return train(model, data, recipe, epochs=4, seed=0).balanced

    assert trained(unequal(balance)) > trained(unequal()) + 10


def test_balance_has_two_ways_only() -> None:
    with pytest.raises(DataError, match="balance"):
        DataSpec(balance="smote")


def test_five_to_one_is_worth_a_note_and_less_is_not() -> None:
    assert "'b'" in imbalance_note(torch.tensor([0] * 10 + [1] * 2), "ab")
    assert imbalance_note(torch.tensor([0] * 9 + [1] * 2), "ab") == ""


def test_large_images_are_measured_in_smaller_batches() -> None:
    assert evaluation_batch(32) == evaluation_batch(96) == 500
    assert evaluation_batch(224) <= 92
    assert evaluation_batch(10_000) == 1


def test_result_does_not_depend_on_the_evaluation_batch() -> None:
    data = unequal()
    large = replace(data, images=data.images.repeat_interleave(60, 2).repeat_interleave(60, 3))
    assert evaluation_batch(large.resolution) < 100
    assert confusion(Constant(), large).matrix.tolist() == confusion(Constant(), data).matrix.tolist()

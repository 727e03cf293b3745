"""Mixup, CutMix and random erasing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gemnet.errors import GemnetError
from gemnet.training.mixing import Mixing, erase

CLASSES = 4


def batch(n: int = 8, side: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Image i is i + 1 everywhere; labels go round."""
    images = (torch.arange(n) + 1.0)[:, None, None, None].expand(n, 3, side, side).clone()
    return images, torch.arange(n) % CLASSES


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(4))
def test_mixup_mixes_images_and_labels_in_the_same_shares(seed: int) -> None:
    images, labels = batch()
    mixed, target = Mixing(mixup=1.0)(images, labels, CLASSES, rng(seed))
    assert target.shape == (8, CLASSES)
    torch.testing.assert_close(target.sum(1), torch.ones(8))
    share = (mixed[0, 0, 0, 0] - 8) / (1 - 8)  # the first image is mixed with the last
    torch.testing.assert_close(target[0, 0], share)
    torch.testing.assert_close(target[0, labels[7]], 1 - share)
    torch.testing.assert_close(mixed, share * images + (1 - share) * images.flip(0))


@pytest.mark.parametrize("seed", range(6))
def test_cutmix_labels_follow_the_pasted_area(seed: int) -> None:
    images, labels = batch()
    before = images.clone()
    mixed, target = Mixing(cutmix=1.0)(images, labels, CLASSES, rng(seed))
    kept = (mixed[0, 0] == 1).float().mean()
    assert set(mixed[0].unique().tolist()) <= {1.0, 8.0}
    torch.testing.assert_close(target[0, 0], kept)
    torch.testing.assert_close(target.sum(1), torch.ones(8))
    assert torch.equal(images, before), "the batch that came in was changed"


def test_with_both_each_batch_gets_one_by_lot() -> None:
    images, labels = batch()
    kinds = set()
    for seed in range(20):
        mixed, _ = Mixing(mixup=1.0, cutmix=1.0)(images, labels, CLASSES, rng(seed))
        kinds.add("cutmix" if set(mixed[0].unique().tolist()) <= {1.0, 8.0} else "mixup")
    assert kinds == {"mixup", "cutmix"}


def test_erasing_fills_one_rectangle_in_some_images() -> None:
    images = torch.full((400, 1, 20, 30), 100.0)
    erased = erase(images, 0.25, rng()) != 100
    hit = erased.flatten(1).any(1)
    assert 0.15 < hit.float().mean() < 0.35
    for mask in erased[hit, 0]:
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns), "not a rectangle"
        assert 0.01 < mask.float().mean() < 0.4
    assert not (erase(images, 0.0, rng()) != 100).any()


def test_the_same_generator_gives_the_same_batch_and_labels_stay_without_mixing() -> None:
    images, labels = batch()
    for mixing in (Mixing(mixup=0.5, cutmix=1.0, erase=0.5), Mixing(erase=1.0)):
        first, second = (mixing(images, labels, CLASSES, rng(3)) for _ in range(2))
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])
    assert torch.equal(Mixing(erase=1.0)(images, labels, CLASSES, rng())[1], labels)


@pytest.mark.parametrize(("name", "value"), [("mixup", -1), ("cutmix", "a"), ("erase", 1.5)])
def test_values_out_of_range_are_named(name: str, value: Any) -> None:
    with pytest.raises(GemnetError, match=f"{name} is at least 0"):
        Mixing(**{name: value})

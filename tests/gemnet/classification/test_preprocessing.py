"""How images are normalised before a classifier."""

from __future__ import annotations

import torch

from gemnet.classification.model import BatchAugmentation


def test_statistics_of_weights_for_other_channels_are_not_taken_over() -> None:
    grey = BatchAugmentation(crop=0, flip=False)
    grey.mean, grey.std = [0.5], [0.5]  # as a classifier of one channel sets them
    assert not grey.follow(((0.1, 0.2, 0.3), (1.0, 1.0, 1.0)))
    images = grey({"inputs": torch.full((2, 1, 8, 8), 255, dtype=torch.uint8), "labels": torch.zeros(2).long()})
    torch.testing.assert_close(images["inputs"], torch.ones(2, 1, 8, 8))
    assert grey.follow(((0.1,), (1.0,)))

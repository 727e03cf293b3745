"""The short training: repeatable, honest about failing, and its augmentation does what it says."""

import hashlib
import math

import pytest
import torch
from torch import nn

from gemnet.data.datasets import DataSpec
from gemnet.training.augmentation import Augmentation
from gemnet.training.images import TrainingData, at_fidelity, load_data
from gemnet.training.loop import TrainingFailed, batches, make_optimizer, measure, train
from gemnet.training.recipe import Recipe, RecipeError, learning_rate, side_of_epoch

RECIPE = Recipe(batch_size=32, lr=0.1, flip=False)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits() -> TrainingData:
    return load_data(DataSpec("digits", dev_fraction=0.5))


def network(seed=0, dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(16, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),  # changes nothing at 8x8, lets smaller images through
            nn.Flatten(),
            nn.Linear(256, 10),
        )


def test_training_learns_digits(digits):
    records = []
    result = train(network(), digits, RECIPE, 3, seed=0, measure_every=1, on_epoch=records.append)
    assert result.accuracy > 80
    assert result.history == tuple(records)
    assert [record.epoch for record in records] == [1, 2, 3]
    assert records[-1].loss < records[0].loss
    assert records[-1].accuracy == result.accuracy
    assert result.images_per_second > 0


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        Recipe(batch_size=32, flip=True, cutout=0.5, ema=0.9),
        Recipe(batch_size=32, schedule="cosine", scale=0.5, randaugment=9, mixup=0.2, cutmix=1.0, progressive=0.5),
        Recipe(batch_size=32, precision="bfloat16", ema=0.9),
    ],
)
def test_same_seed_gives_the_same_weights_and_another_seed_others(digits, recipe):
    data = at_fidelity(digits, subset=0.3)
    models = [network(dropout=0.2) for _ in range(3)]
    torch.manual_seed(123)
    results = [train(models[0], data, recipe, 2, seed=0)]
    torch.manual_seed(456)  # the caller's generator must not matter
    results += [train(models[1], data, recipe, 2, seed=0), train(models[2], data, recipe, 2, seed=1)]
    states = [torch.cat([value.double().flatten() for value in model.state_dict().values()]) for model in models]
    assert results[0].history == results[1].history
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_training_leaves_the_callers_generator_alone(digits):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(network(dropout=0.5), at_fidelity(digits, subset=0.1), RECIPE, 1, seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_exploding_training_fails_with_the_epoch(digits):
    # without norms, which would bear any learning rate
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10))
    with pytest.raises(TrainingFailed, match=r"The loss became (nan|inf) in epoch 1"):
        train(model, digits, Recipe(batch_size=32, lr=100, warmup=0), 2, seed=0)


def test_nan_of_the_last_steps_is_noticed_too(digits):
    model = network()
    data = at_fidelity(digits, subset=0.1)  # two steps: fewer than between two looks at the loss
    with torch.no_grad():
        model[0].weight.fill_(math.nan)
    with pytest.raises(TrainingFailed, match="The loss became nan in epoch 1"):
        train(model, data, RECIPE, 1, seed=0)


def test_time_limit_ends_a_training(digits):
    with pytest.raises(TrainingFailed, match=r"Over its time limit of 0.2 s after \d+ of \d+ steps"):
        train(network(), digits, RECIPE, 10_000, seed=0, time_limit=0.2)


def test_average_of_weights_is_what_is_kept(digits):
    plain, averaged = network(), network()
    train(plain, digits, RECIPE, 1, seed=0)
    result = train(averaged, digits, Recipe(batch_size=32, lr=0.1, flip=False, ema=0.5), 1, seed=0)
    assert not torch.equal(plain[0].weight, averaged[0].weight)
    assert measure(averaged, digits) == result.accuracy


def test_average_of_a_short_training_has_left_the_first_weights_behind(digits):
    data = at_fidelity(digits, subset=0.5)
    recipe = Recipe(batch_size=32, lr=0.1, crop=0.0, flip=False, ema=0.999)
    assert train(network(), data, recipe, 4, seed=0).accuracy > 50  # a thousandth a step would leave it at chance
    assert recipe.identity()["ema_rises"]


def test_only_kernels_and_matrices_decay():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.linear = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2)
            self.edge = nn.Parameter(torch.zeros(3, 3))

        def no_weight_decay(self):
            return {"edge"}

    model = Model()
    decay, keep = make_optimizer(model, Recipe(weight_decay=0.25)).param_groups
    assert decay["weight_decay"] == 0.25
    assert keep["weight_decay"] == 0
    assert {id(p) for p in decay["params"]} == {id(model.conv.weight), id(model.linear.weight)}
    assert len(keep["params"]) == 5


def test_learning_rate_rises_to_its_peak_and_falls_to_zero():
    recipe = Recipe(lr=0.4, warmup=0.25)
    rates = [learning_rate(recipe, step, 400) for step in range(400)]
    assert 0 < rates[0] < 0.01
    assert rates.index(max(rates)) in (99, 100)
    assert max(rates) == pytest.approx(0.4, rel=0.01)
    assert 0 < rates[-1] < 0.002
    assert rates[:99] == sorted(rates[:99])
    assert rates[101:] == sorted(rates[101:], reverse=True)
    assert learning_rate(Recipe(lr=0.4, warmup=0), 0, 10) == pytest.approx(0.38)


def test_learning_rate_falls_by_half_a_cosine_wave_where_it_is_asked_for():
    recipe = Recipe(lr=0.4, warmup=0.25, schedule="cosine")
    rates = [learning_rate(recipe, step, 400) for step in range(400)]
    assert rates[:100] == [learning_rate(Recipe(lr=0.4, warmup=0.25), step, 400) for step in range(100)]
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[249] == pytest.approx(0.2, rel=0.01)
    assert rates[-1] < 1e-4


def test_default_recipe_trains_as_it_always_did(digits):
    recipe = Recipe(batch_size=32, cutout=0.25)
    generator, seen = torch.Generator().manual_seed(0), hashlib.sha256()
    for images, labels in batches(digits, 32, recipe, generator, torch.device("cpu")):
        seen.update(images.contiguous().numpy().tobytes() + labels.numpy().tobytes())
    seen.update(generator.get_state().numpy().tobytes())
    assert seen.hexdigest()[:16] == "5725fc91e210694a"
    assert recipe.identity() == {
        "batch_size": 32,
        "lr": 0.2,
        "warmup": 0.25,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "label_smoothing": 0.1,
        "crop": 0.125,
        "flip": True,
        "cutout": 0.25,
        "ema": None,
    }


@pytest.mark.parametrize(
    "option",
    [
        {"schedule": "cosine"},
        {"scale": 0.3},
        {"randaugment": 9},
        {"mixup": 0.2},
        {"cutmix": 1.0},
        {"progressive": 0.5},
        {"precision": "bfloat16"},
    ],
)
def test_a_setting_that_is_used_makes_another_recipe(option):
    assert Recipe(**option).identity() == {**Recipe().identity(), **option}


def test_mixed_precision_learns_in_bfloat16_and_is_kept_and_measured_in_float32(digits):
    seen = []
    model = network()
    model[0].register_forward_hook(lambda module, inputs, output: seen.append((module.training, output.dtype)))
    result = train(model, digits, Recipe(batch_size=32, crop=0.0, flip=False, precision="bfloat16"), 4, seed=0)
    assert set(seen) == {(True, torch.bfloat16), (False, torch.float32)}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert result.accuracy > 60


def test_progressive_training_begins_small_and_ends_at_the_whole_side(digits):
    sides = [side_of_epoch(96, 0.67, epoch, 30) for epoch in range(30)]
    assert sides[0] == 64
    assert sides == sorted(sides)
    assert set(sides[24:]) == {96}
    assert side_of_epoch(96, 0.67, 0, 1) == 96
    assert {side_of_epoch(90, 1.0, epoch, 3) for epoch in range(3)} == {90}

    seen = []

    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(1, 10)

        def forward(self, images):
            seen.append((self.training, images.shape[-1]))
            return self.head(images.mean((1, 2, 3))[:, None])

    data = at_fidelity(digits, resolution=16, subset=0.1)
    train(Watching(), data, Recipe(batch_size=32, progressive=0.5), 3, seed=0)
    learnt = [side for training, side in seen if training]
    assert learnt == sorted(learnt)
    assert set(learnt) == {8, 12, 16}
    assert {side for training, side in seen if not training} == {16}


def test_mixed_labels_are_shares_of_the_classes(digits):
    recipe = Recipe(batch_size=32, mixup=0.4, cutmix=1.0)
    for _, labels in batches(digits, 32, recipe, torch.Generator().manual_seed(0), torch.device("cpu")):
        assert labels.shape == (32, 10)
        assert torch.allclose(labels.sum(1), torch.ones(32))


class TestAugmentation:
    mean, std = (0.5, 0.25, 0.75), (0.2, 0.3, 0.4)

    def images(self, n=64, side=8):
        return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def augment(self, images, **options):
        augment = Augmentation(self.mean, self.std, **options)
        return augment(images, torch.Generator().manual_seed(1))

    def bytes_of(self, result):
        mean = torch.tensor(self.mean)[None, :, None, None] * 255
        std = torch.tensor(self.std)[None, :, None, None] * 255
        return (result * std + mean).round().to(torch.uint8)

    def test_without_options_only_normalises(self):
        images = self.images()
        result = self.augment(images)
        assert result.dtype == torch.float32
        assert result.is_contiguous(memory_format=torch.channels_last)
        expected = (images.float() / 255 - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[
            :, None, None
        ]
        assert torch.allclose(result, expected, atol=1e-5)

    def test_flip_mirrors_about_half_of_the_images(self):
        images = self.images(400)
        result = self.bytes_of(self.augment(images, flip=True))
        same = (result == images).flatten(1).all(1)
        mirrored = (result == images.flip(3)).flatten(1).all(1)
        assert bool((same ^ mirrored).all())
        assert 150 < int(mirrored.sum()) < 250

    def test_crops_are_windows_of_the_padded_image_in_all_places(self):
        images = self.images(600)
        result = self.bytes_of(self.augment(images, crop=0.25))  # two pixels
        fill = (torch.tensor(self.mean) * 255).round().to(torch.uint8)[None, :, None, None]
        wide = fill.expand(600, 3, 12, 12).clone()
        wide[:, :, 2:-2, 2:-2] = images
        seen = {}
        for dy in range(5):
            for dx in range(5):
                hit = (result == wide[:, :, dy : dy + 8, dx : dx + 8]).flatten(1).all(1)
                seen[dy, dx] = int(hit.sum())
        assert sum(seen.values()) == 600
        assert min(seen.values()) > 5

    def test_cutout_covers_one_square_with_the_mean(self):
        images = torch.zeros(50, 3, 8, 8, dtype=torch.uint8)
        result = self.bytes_of(self.augment(images, cutout=0.5))
        fill = (torch.tensor(self.mean) * 255).round().to(torch.uint8)
        covered = result[:, 0] == fill[0]
        assert bool((covered == (result[:, 2] == fill[2])).all())
        assert bool((result[~covered[:, None].expand_as(result)] == 0).all())
        assert int(covered.flatten(1).sum(1).max()) == 9  # 3 x 3 around the centre: less than 4 wide on each side
        for image in covered:
            rows, columns = image.any(1).nonzero(), image.any(0).nonzero()
            assert int(image.sum()) == len(rows) * len(columns)

    def test_resized_crops_are_parts_of_the_image_of_at_least_the_share_asked_for(self):
        ramp = torch.arange(0, 256, 4, dtype=torch.uint8)  # brightness is the place
        across = ramp.expand(500, 3, 64, 64)
        for images in (across, across.transpose(2, 3)):
            result = self.bytes_of(self.augment(images, scale=0.25))
            edges = result[:, 0, 31, [0, -1]] if images is across else result[:, 0, [0, -1], 31]
            left, right = edges.to(torch.float32).unbind(1)
            extent = (right - left) / 252
            assert float(extent.min()) > 0.4  # the square root of a quarter, times that of the narrowest aspect
            assert float(extent.max()) > 0.97
            assert float(left.max()) > 60
            assert float(left.min()) < 5

    def test_crops_come_at_the_side_asked_for(self):
        images = self.images()
        for options in ({}, {"crop": 0.25}, {"scale": 0.5}, {"randaugment": 9}):
            augment = Augmentation(self.mean, self.std, **options)
            assert augment(images, torch.Generator().manual_seed(0), 4).shape == (64, 3, 4, 4)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_randaugment_changes_images_by_the_generator_alone(self, channels):
        images = self.images(side=16)[:, :channels]
        augment = Augmentation(self.mean[:channels], self.std[:channels], randaugment=9)
        torch.manual_seed(0)
        before = torch.get_rng_state()
        results = [augment(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(results[0], results[1])
        assert not torch.equal(results[0], results[2])
        assert not torch.equal(results[0], augment.normalise(images))

    def test_source_images_are_untouched(self):
        images = self.images()
        before = images.clone()
        self.augment(images, crop=0.25, flip=True, cutout=0.5)
        self.augment(images, scale=0.5, randaugment=20)
        assert torch.equal(images, before)


def test_one_pass_shows_every_image_once_but_the_incomplete_batch(digits):
    plain = Recipe(batch_size=32, crop=0, flip=False)
    labels = [y for _, y in batches(digits, 32, plain, torch.Generator().manual_seed(0), torch.device("cpu"))]
    assert len(labels) == len(digits.train) // 32
    seen = torch.bincount(torch.cat(labels), minlength=10)
    whole = torch.bincount(digits.labels[digits.train], minlength=10)
    assert bool((seen <= whole).all())
    assert int((whole - seen).sum()) == len(digits.train) % 32


def test_fidelity_takes_nested_shares_and_leaves_the_development_images(digits):
    half, tenth = at_fidelity(digits, subset=0.5), at_fidelity(digits, subset=0.1)
    assert set(tenth.train.tolist()) < set(half.train.tolist()) < set(digits.train.tolist())
    assert torch.equal(half.dev, digits.dev)
    larger = at_fidelity(digits, resolution=16, subset=0.1)
    assert larger.resolution == 16
    assert len(larger.train) == len(tenth.train)
    assert torch.equal(larger.labels[larger.dev], digits.labels[digits.dev])
    assert torch.equal(larger.labels[larger.train], digits.labels[tenth.train])


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda data: Recipe(lr=-1), "lr"),
        (lambda data: Recipe(batch_size=0), "batch_size"),
        (lambda data: Recipe(ema=1.5), "ema"),
        (lambda data: Recipe(label_smoothing=1), "label_smoothing"),
        (lambda data: Recipe(schedule="step"), "schedule"),
        (lambda data: Recipe(precision="float16"), "precision"),
        (lambda data: Recipe(scale=0), "scale"),
        (lambda data: Recipe(randaugment=31), "randaugment"),
        (lambda data: Recipe(mixup=-1), "mixup"),
        (lambda data: Recipe(progressive=0), "progressive"),
        (lambda data: at_fidelity(data, subset=0), "subset"),
        (lambda data: at_fidelity(data, resolution=0), "resolution"),
        (lambda data: train(network(), data, RECIPE, 0, seed=0), "epochs"),
    ],
)
def test_values_out_of_range_are_named(digits, make, word):
    with pytest.raises(RecipeError, match=word):
        make(digits)

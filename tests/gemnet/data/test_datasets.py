"""Images in memory: every source gives the same form, nothing is decoded twice, and bad folders are named."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import cifar as cifar_module

from gemnet.data import datasets
from gemnet.data.datasets import DataSpec, load_train_images, open_test_images, train_dev_split
from gemnet.data.decoded import INTERPOLATION, resize
from gemnet.data.folders import list_images
from gemnet.data.image_set import DataError
from gemnet.data.reading import centre_square

REAL_DATA = os.environ.get("GEMNET_DATA", "data")  # before a test sets another


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GEMNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GEMNET_DATA", str(tmp_path / "data"))


def pixels(seed, height=12, width=12):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Three classes of four lossless images, of four file types, and a test part."""
    root = tmp_path / "pictures"
    for split, first in (("train", 0), ("val", 100)):
        for label, name in enumerate(("ant", "bee", "cat")):
            (root / split / name).mkdir(parents=True)
            for k, extension in enumerate((".png", ".webp", ".bmp", ".PNG")):
                options = {"lossless": True} if extension == ".webp" else {}
                Image.fromarray(pixels(first + 10 * label + k)).save(root / split / name / f"{k}{extension}", **options)
    return root


def test_digits_need_no_files_and_hold_out_a_fixed_test_part(tmp_path):
    train = load_train_images(DataSpec("digits"))
    test = open_test_images(DataSpec("digits"), tmp_path / "log.jsonl", "a test")
    assert train.images.dtype == torch.uint8
    assert train.images.shape == (1438, 1, 8, 8)
    assert len(test) == 359
    assert train.images.max() == 255
    assert train.classes == tuple("0123456789")
    own = {bytes(image.numpy()) for image in train.images}
    shared = sum(bytes(image.numpy()) in own for image in test.images)
    assert shared == 0


def test_digits_at_another_resolution():
    assert load_train_images(DataSpec("digits", resolution=16)).images.shape == (1438, 1, 16, 16)


def test_image_folder_is_read_exactly_whatever_the_file_type(folder):
    images = load_train_images(DataSpec(str(folder)))
    assert images.classes == ("ant", "bee", "cat")
    assert images.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    names = ["0.png", "1.webp", "2.bmp", "3.PNG"]
    for label, name in enumerate(images.classes):
        for k, _ in enumerate(names):
            expected = torch.from_numpy(pixels(10 * label + k)).permute(2, 0, 1)
            assert torch.equal(images.images[4 * label + k], expected), (name, k)


def test_test_images_of_other_classes_are_refused(tmp_path, folder):
    (folder / "val" / "bee").rename(folder / "val" / "wasp")  # the same number of classes, numbered alike
    with pytest.raises(DataError, match="missing 'bee'; only there 'wasp'"):
        open_test_images(DataSpec(str(folder)), tmp_path / "log", "a test")
    shutil.rmtree(folder / "val" / "wasp")
    with pytest.raises(DataError, match="missing 'bee'; only there none"):
        list_images(folder, "val")
    assert not (tmp_path / "log").exists()


def test_folder_without_train_subfolder_is_all_training_images(tmp_path, folder):
    flat = load_train_images(DataSpec(str(folder / "train")))
    assert flat.digest == load_train_images(DataSpec(str(folder))).digest
    with pytest.raises(DataError, match="no subfolder 'val'"):
        open_test_images(DataSpec(str(folder / "train")), tmp_path / "log", "a test")


def test_parts_are_known_however_their_names_are_written(tmp_path, folder):
    usual = load_train_images(DataSpec(str(folder)))
    (folder / "train").rename(folder / "Train")
    (folder / "val").rename(folder / "TEST")
    found = load_train_images(DataSpec(str(folder)))
    assert found.classes == ("ant", "bee", "cat")
    assert found.digest == usual.digest
    assert len(open_test_images(DataSpec(str(folder)), tmp_path / "log", "a test")) == 12


@pytest.mark.parametrize("name", ["train", "Test", "val"])
def test_a_class_may_be_called_like_a_part(tmp_path, name, caplog):
    for label, other in enumerate(("bus", "car", name)):
        (tmp_path / "vehicles" / other).mkdir(parents=True)
        for k in range(3):
            Image.fromarray(pixels(10 * label + k)).save(tmp_path / "vehicles" / other / f"{k}.png")
    assert set(load_train_images(DataSpec(str(tmp_path / "vehicles"))).classes) == {"bus", "car", name}
    with pytest.raises(DataError, match="no subfolder 'val'"):
        open_test_images(DataSpec(str(tmp_path / "vehicles")), tmp_path / "log", "a test")
    assert not caplog.records


def test_folders_of_images_beside_a_part_are_named(folder, caplog):
    shutil.rmtree(folder / "val")
    (folder / "unlabelled").mkdir()
    Image.fromarray(pixels(1)).save(folder / "unlabelled/0.png")
    assert load_train_images(DataSpec(str(folder))).classes == ("ant", "bee", "cat")
    assert "folders beside it are left out: unlabelled. If all are classes" in caplog.text


def test_images_beside_the_classes_are_counted(folder, caplog):
    Image.fromarray(pixels(1)).save(folder / "train/0.png")
    assert len(load_train_images(DataSpec(str(folder)))) == 12
    assert "1 images lie beside the folders of the classes and are left out, such as '0.png'" in caplog.text


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """The current folder and the data root."""
    here, root = tmp_path / "here", tmp_path / "root"
    for place in (here, root):
        place.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("GEMNET_DATA", str(root))
    return here, root


@pytest.mark.parametrize("name", ["photos", "cifar10"])
def test_a_name_is_a_folder_here_or_below_the_data_root_and_of_both_neither(folder, roots, name):
    usual = load_train_images(DataSpec(str(folder))).digest
    for place in roots:
        folder.rename(place / name)
        folder = place / name
        assert load_train_images(DataSpec(name)).digest == usual
    shutil.copytree(folder, roots[0] / name)
    with pytest.raises(DataError, match=rf"\./{name} in the current folder, and {roots[1] / name} below"):
        load_train_images(DataSpec(name))
    assert load_train_images(DataSpec(f"./{name}")).digest == usual


def test_a_name_is_one_folder_where_the_data_root_is_the_current_one(folder, roots, monkeypatch):
    folder.rename(roots[0] / "photos")
    monkeypatch.setenv("GEMNET_DATA", ".")
    assert len(load_train_images(DataSpec("photos"))) == 12


def test_a_folder_that_is_called_like_the_digits_is_named(folder, roots, caplog):
    folder.rename(roots[0] / "digits")
    assert len(load_train_images(DataSpec("digits"))) == 1438
    assert "not your folder; its path is ./digits" in caplog.text
    assert len(load_train_images(DataSpec("./digits"))) == 12


def test_second_load_decodes_nothing_and_maps_the_same_bytes(folder, monkeypatch):
    first = load_train_images(DataSpec(str(folder)))

    def fail(*_, **__):
        raise AssertionError("decoded again")

    monkeypatch.setattr(datasets, "decode_images", fail)
    second = load_train_images(DataSpec(str(folder)))
    assert torch.equal(first.images, second.images)
    assert first.digest == second.digest


def test_changed_image_is_decoded_again(folder):
    before = load_train_images(DataSpec(str(folder)))
    Image.fromarray(pixels(999)).save(folder / "train/ant/0.png")
    os.utime(folder / "train/ant/0.png", (1, 1))
    after = load_train_images(DataSpec(str(folder)))
    assert after.digest != before.digest
    assert torch.equal(after.images[0], torch.from_numpy(pixels(999)).permute(2, 0, 1))


def test_digest_depends_on_content_not_on_place(folder, tmp_path):
    here = load_train_images(DataSpec(str(folder)))
    folder.rename(tmp_path / "elsewhere")
    assert load_train_images(DataSpec(str(tmp_path / "elsewhere"))).digest == here.digest


def test_training_never_reads_the_test_part(folder):
    for file in (folder / "val").rglob("*.*"):
        file.write_bytes(b"not an image")
    assert len(load_train_images(DataSpec(str(folder)))) == 12


def test_every_opening_of_the_test_part_is_logged(folder, tmp_path):
    log = tmp_path / "logs/openings.jsonl"
    for purpose in ("one", "two"):
        open_test_images(DataSpec(str(folder)), log, purpose)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["purpose"] for line in lines] == ["one", "two"]
    assert all(line["commit"] and line["digest"] and line["images"] == 12 for line in lines)


def test_mixed_sizes_need_a_resolution_and_get_it(folder):
    Image.fromarray(pixels(5, 30, 20)).save(folder / "train/bee/wide.png")
    with pytest.raises(DataError, match=r"wide\.png is 20x30.*resolution"):
        load_train_images(DataSpec(str(folder)))
    images = load_train_images(DataSpec(str(folder), resolution=10))
    assert images.images.shape == (13, 3, 10, 10)


def test_grey_palette_and_rotated_images_become_upright_colour(tmp_path):
    root = tmp_path / "kinds"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
    Image.fromarray(pixels(1)[:, :, 0]).save(root / "a/grey.png")
    Image.fromarray(pixels(2)).convert("P").save(root / "a/palette.gif")
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    Image.fromarray(pixels(3)).save(root / "b/rotated.png", exif=exif)
    images = load_train_images(DataSpec(str(root)))
    assert images.images.shape == (3, 3, 12, 12)
    assert torch.equal(images.images[0, 0], images.images[0, 2])
    upright = np.ascontiguousarray(pixels(3)[::-1, ::-1])
    assert torch.equal(images.images[2], torch.from_numpy(upright).permute(2, 0, 1))


def test_16_bit_grey_keeps_its_shades(tmp_path):
    levels = pixels(4)[:, :, 0]
    for name, image in (
        ("eight", Image.fromarray(levels)),
        ("sixteen", Image.fromarray(levels.astype(np.uint16) * 257)),
    ):
        (tmp_path / name / "x").mkdir(parents=True)
        (tmp_path / name / "y").mkdir()
        image.save(tmp_path / name / "x/a.png")
        image.save(tmp_path / name / "y/a.png")
    eight, sixteen = (load_train_images(DataSpec(str(tmp_path / name))) for name in ("eight", "sixteen"))
    assert torch.equal(eight.images, sixteen.images)


def test_levels_without_a_range_are_refused_by_name(tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels(4)[:, :, 0].astype(np.float32)).save(tmp_path / name / "odd.tiff")
    with pytest.raises(DataError, match=r"odd\.tiff.*fractions"):
        load_train_images(DataSpec(str(tmp_path)))


def test_a_shape_that_is_in_the_alpha_channel_alone_is_seen(tmp_path):
    for name, alpha in (("x", 0), ("y", 255)):
        (tmp_path / name).mkdir()
        Image.new("RGBA", (8, 8), (255, 255, 255, alpha)).save(tmp_path / name / "a.png")
    images = load_train_images(DataSpec(str(tmp_path))).images
    assert not torch.equal(images[0], images[1])


def test_every_ending_that_pillow_reads_counts_and_the_rest_is_named(folder, caplog):
    for name in ("photo.jfif", "photo.jpe", "photo.tga"):
        Image.fromarray(pixels(7)).save(folder / "train/ant" / name)
    (folder / "train/ant/notes.txt").write_text("")
    (folder / "train/bee/film.mp4").write_text("")
    images = load_train_images(DataSpec(str(folder)))
    assert torch.bincount(images.labels).tolist() == [7, 4, 4]
    assert "2 files are no images" in caplog.text
    assert ".txt" in caplog.text


@pytest.mark.parametrize("damage", ["shorter", "gone", "no json", "labels"])
def test_a_damaged_cache_is_made_anew(folder, tmp_path, damage):
    first = load_train_images(DataSpec(str(folder)))
    digest, values = first.digest, first.images.clone()
    del first
    entry = next((tmp_path / "cache").rglob("set.json")).parent
    if damage == "shorter":
        (entry / "images.u8").write_bytes(b"x")
    elif damage == "gone":
        (entry / "images.u8").unlink()
    elif damage == "no json":
        (entry / "set.json").write_text("{")
    else:
        (entry / "labels.npy").write_bytes(b"")
    again = load_train_images(DataSpec(str(folder)))
    assert again.digest == digest
    assert torch.equal(again.images, values)


def test_a_file_name_that_is_not_utf8_is_read(folder):
    os.rename(folder / "train/ant/0.png", os.fsencode(folder / "train/ant") + b"/0\xff.png")
    assert len(load_train_images(DataSpec(str(folder)))) == 12


class TestBadFolders:
    def check(self, source, *words):
        with pytest.raises(DataError) as error:
            load_train_images(DataSpec(str(source)))
        for word in words:
            assert word in str(error.value), str(error.value)
        assert "\n" not in str(error.value)

    def test_missing(self, tmp_path):
        self.check(tmp_path / "nowhere", "nowhere", "GEMNET_DATA")

    def test_empty(self, tmp_path):
        (tmp_path / "void").mkdir()
        self.check(tmp_path / "void", "void", "no subfolders")

    def test_empty_class(self, folder):
        (folder / "train/dog").mkdir()
        self.check(folder, "dog (it is empty) holds no images. Add images")

    def test_several_empty_classes_are_named_at_once(self, folder):
        (folder / "train/dog").mkdir()
        (folder / "train/emu").mkdir()
        (folder / "train/emu/notes.txt").write_text("")
        self.check(folder, "without images: ", "dog (it is empty), ", "emu (only files such as 'notes.txt'")

    def test_class_without_known_images(self, folder):
        (folder / "train/dog").mkdir()
        (folder / "train/dog/notes.txt").write_text("")
        self.check(folder, "dog", "notes.txt", ".webp")

    def test_link_to_a_folder_above(self, folder):
        (folder / "train/cat/loop").symlink_to(folder / "train", target_is_directory=True)
        self.check(folder, "loop", "link")

    def test_class_name_that_is_not_utf8(self, folder):
        os.rename(folder / "train/ant", os.fsencode(folder / "train") + b"/a\xfft")
        self.check(folder, "UTF-8", r"a\xfft")

    def test_folder_without_permission(self, folder, monkeypatch):
        def refuse(path):
            raise PermissionError(13, "Permission denied", path)

        monkeypatch.setattr(os, "scandir", refuse)
        self.check(folder, "train", "Permission denied")

    def test_one_class(self, tmp_path):
        (tmp_path / "one/ant").mkdir(parents=True)
        Image.fromarray(pixels(0)).save(tmp_path / "one/ant/a.png")
        self.check(tmp_path / "one", "one class", "ant")

    def test_truncated_image(self, folder):
        file = folder / "train/cat/0.png"
        file.write_bytes(file.read_bytes()[:200])
        self.check(folder, "cat/0.png", "1 of 12")

    def test_file_that_is_no_image(self, folder):
        (folder / "train/cat/0.png").write_text("hello")
        (folder / "train/ant/0.png").write_text("hello")
        self.check(folder, "ant/0.png", "cat/0.png", "2 of 12")

    def test_truncated_image_leaves_no_cache_behind(self, folder, tmp_path):
        file = folder / "train/cat/0.png"
        whole = file.read_bytes()
        file.write_bytes(whole[:200])
        with pytest.raises(DataError):
            load_train_images(DataSpec(str(folder)))
        assert not list((tmp_path / "cache").rglob("set.json"))

    def test_unknown_name(self):
        self.check("cifar1", "cifar1", "Did you mean 'cifar10'?", "torch/")

    def test_single_image_class_cannot_be_divided(self, folder):
        images = load_train_images(DataSpec(str(folder)))
        labels = torch.tensor([0, 0, 1])
        with pytest.raises(DataError, match="'bee' has 1"):
            train_dev_split(labels, images.classes[:2], 0.5, 0)

    def test_full_disk_is_said_before_anything_is_written(self, folder, tmp_path, monkeypatch):
        class Full:
            free = 10

        monkeypatch.setattr(shutil, "disk_usage", lambda _: Full)
        self.check(folder, "GEMNET_CACHE")
        assert not list((tmp_path / "cache").rglob("*.u8"))


@pytest.mark.parametrize("values", [{"dev_fraction": 0.0}, {"dev_fraction": 1.0}, {"resolution": 0}])
def test_spec_refuses_values_out_of_range(values):
    with pytest.raises(DataError, match=next(iter(values))):
        DataSpec(**values)


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(2, 40), min_size=2, max_size=6),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 1000),
)
def test_split_is_a_stratified_partition(counts, fraction, seed):
    labels = torch.from_numpy(np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts)))
    names = [str(k) for k in range(len(counts))]
    train, dev = train_dev_split(labels, names, fraction, seed)
    assert sorted([*train, *dev]) == list(range(len(labels)))
    for label, count in enumerate(counts):
        held_out = int((labels[dev] == label).sum())
        assert held_out == min(max(round(count * fraction), 1), count - 1)
    again = train_dev_split(labels, names, fraction, seed)
    assert np.array_equal(train, again[0])
    assert np.array_equal(dev, again[1])


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.99])
def test_split_never_divides_a_group(fraction):
    labels = torch.from_numpy(np.repeat([0, 1], 60))
    groups = labels * 20 + torch.arange(120) % torch.where(labels == 0, 7, 2)  # of 8 or 9 images, and of 30
    train, dev = train_dev_split(labels, "ab", fraction, 0, groups)
    assert sorted([*train, *dev]) == list(range(120))
    assert not set(groups[train].tolist()) & set(groups[dev].tolist())
    assert [int((labels[dev] == label).sum()) for label in (0, 1)] == {
        0.01: [pytest.approx(8.5, abs=0.5), 30],
        0.3: [pytest.approx(17, abs=1), 30],
        0.99: [pytest.approx(51.5, abs=0.5), 30],
    }[fraction]


def test_prefixes_of_the_training_part_hold_the_classes_in_proportion():
    labels = torch.from_numpy(np.repeat([0, 1, 2], [1000, 500, 500]))
    train, _ = train_dev_split(labels, "abc", 0.2, 0)
    for size in (40, 400, 1200):
        share = np.bincount(labels[train[:size]].numpy()) / size
        assert np.allclose(share, [0.5, 0.25, 0.25], atol=0.03)


def test_other_seed_gives_another_split():
    labels = torch.from_numpy(np.repeat([0, 1], 50))
    assert not np.array_equal(train_dev_split(labels, "ab", 0.2, 0)[1], train_dev_split(labels, "ab", 0.2, 1)[1])


@pytest.mark.parametrize(("side", "resolution"), [(32, 96), (96, 32), (28, 32)])
def test_images_in_memory_are_resized_as_files_are(side, resolution):
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    found = resize(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None], resolution, INTERPOLATION)[0]
    expected = np.asarray(centre_square(Image.fromarray(pixels), resolution)).transpose(2, 0, 1)
    assert np.abs(found.numpy().astype(int) - expected).max() <= 1


def test_resize_keeps_bytes_and_averages():
    images = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4)
    assert resize(images, None) is images
    assert resize(images, 4) is images
    small = resize(torch.full((5, 3, 8, 8), 77, dtype=torch.uint8), 4)
    assert small.dtype == torch.uint8
    assert small.shape == (5, 3, 4, 4)
    assert bool((small == 77).all())


def test_timm_name_reads_the_same_images_as_torchvision(tmp_path):
    """torchvision's own CIFAR-10 files, made by hand with their checks switched off, through timm's name for it."""
    root = tmp_path / "data/cifar-10-batches-py"
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (20, 3072), dtype=np.uint8)
    for name in [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]:
        (root / name).write_bytes(pickle.dumps({"data": data, "labels": [k % 10 for k in range(20)]}))
    (root / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"c{k}" for k in range(10)]}))
    from torchvision.datasets import CIFAR10

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CIFAR10, "_check_integrity", lambda self: True)
        patch.setattr(cifar_module, "check_integrity", lambda *_: True)
        by_timm = load_train_images(DataSpec("torch/cifar10"))
        by_torchvision = load_train_images(DataSpec("cifar10"))
    assert len(by_timm) == 100
    assert torch.equal(by_timm.images, by_torchvision.images)
    assert torch.equal(by_timm.labels, by_torchvision.labels)
    assert by_timm.classes == by_torchvision.classes == tuple(f"c{k}" for k in range(10))


def test_unknown_timm_name_is_a_clear_error():
    with pytest.raises(DataError, match="torch/nonsense"):
        load_train_images(DataSpec("torch/nonsense"))


def test_missing_cifar10_says_both_ways_to_get_it(monkeypatch):
    from torchvision.datasets import CIFAR10

    def offline(self):
        raise OSError("no network")

    monkeypatch.setattr(CIFAR10, "download", offline)
    with pytest.raises(DataError, match=r"no network.*cifar10/train.*GEMNET_DATA"):
        load_train_images(DataSpec("cifar10"))


@pytest.mark.slow
@pytest.mark.skipif(
    not (Path(REAL_DATA) / "cifar10").is_dir(),
    reason="needs CIFAR-10 as an image folder: unpack it to data/cifar10 or set GEMNET_DATA",
)
def test_cifar10_folder_is_the_whole_training_set():
    images = load_train_images(DataSpec("cifar10", root=REAL_DATA))
    assert images.images.shape == (50_000, 3, 32, 32)
    assert torch.bincount(images.labels).tolist() == [5000] * 10

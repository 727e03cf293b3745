"""Images for training, decoded once and kept as bytes: digits, CIFAR-10, an image folder, any timm data set.

A data set is one uint8 tensor. Small sets are decoded in seconds, written to a cache beside nothing but their shape,
and mapped into memory from there, so that worker processes share one copy and no training step ever decodes an image.

The official test images (`val`) are never read here unless they are asked for by that name: see `open_test_images`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from gemnet.errors import GemnetError, nearest
from nas.cache import cache_root, make_cache_folder

IMAGE_EXTENSIONS = frozenset(
    (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
"""What Pillow decodes without plugins."""
TIMM_PREFIXES = ("torch/", "hfds/", "hfids/", "tfds/", "wds/")
SPLIT_FOLDERS = {"train": ("train", "training"), "val": ("val", "validation", "test")}
CACHE_FORMAT = 1  # part of every cache key: raise it when decoding changes
CROP_PCT, INTERPOLATION = 1.0, "bicubic"
"""How images become squares, by timm's names: nothing of the shorter side is cut off."""
DIGITS_TEST_SHARE, DIGITS_TEST_SEED = 0.2, 0
SHOWN = 3  # culprits named in one message


class DataError(GemnetError):
    """A data set that can't be found, read or used. The message names the culprit."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images.

    Args:
        images: uint8 (n, channels, height, width); mapped from a file where the set is cached: don't write to it.
        labels: int64 (n,), each in ``range(len(classes))``.
        classes: names, in the order of the labels.
        digest: 16 hex digits of the sha256 of pixels, labels and names: equal for equal content on any machine.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return int(self.images.shape[1])

    @property
    def resolution(self) -> int:
        """Side of the square images, in pixels."""
        return int(self.images.shape[2])


@dataclass(frozen=True)
class DataSpec:
    """Which images to search on, and how their training images are divided.

    Args:
        source: ``digits`` (in scikit-learn, 8x8 grey), ``cifar10``, the path of an image folder
            (``<path>/train/<class>/*``, or ``<path>/<class>/*``), the name of such a folder below the data root, or a
            timm name such as ``torch/fashion_mnist``.
        root: data root, for names; default ``$GEMNET_DATA``, else ``data``.
        resolution: side in pixels images are kept at (shorter side resized, centre cropped); None keeps theirs, which
            must then be one and the same.
        dev_fraction: share of the training images, of each class alike, set aside to measure candidates on.
        split_seed: draws that share.

    Raises:
        DataError: a share outside (0, 1), or a resolution that is not positive.
    """

    source: str = "digits"
    root: str | None = None
    resolution: int | None = None
    dev_fraction: float = 0.2
    split_seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.dev_fraction < 1:
            raise DataError(f"dev_fraction lies between 0 and 1, got {self.dev_fraction}.")
        if self.resolution is not None and self.resolution < 1:
            raise DataError(f"resolution is a positive number of pixels, got {self.resolution}.")


def data_root(root: str | None = None) -> Path:
    """The folder data sets lie in: ``root``, else ``$GEMNET_DATA``, else ``data``."""
    return Path(root or os.environ.get("GEMNET_DATA") or "data").expanduser()


def load_train_images(spec: DataSpec) -> ImageSet:
    """All training images of a data set.

    Raises:
        DataError: missing, empty, of one class, unreadable or of mixed sizes; the message names the culprit.
    """
    return _load(spec, "train")


def open_test_images(spec: DataSpec, log: str | os.PathLike[str], purpose: str) -> ImageSet:
    """The official test images, for a final figure. Every opening is written to a log, with the commit.

    Args:
        spec: the data set.
        log: file one JSON line is appended to: time, commit, data set, digest and purpose.
        purpose: what is measured.

    Raises:
        DataError: as `load_train_images`, or the data set has no test images.
    """
    images = _load(spec, "val")
    log_opening(log, spec.source, purpose, {"images": len(images), "digest": images.digest})
    return images


def missing_test_images(spec: DataSpec) -> str:
    """Why a data set has no official test images, in a sentence; "" where it seems to have some. None are opened."""
    try:
        if spec.source in ("digits", "cifar10") or spec.source.startswith(TIMM_PREFIXES):
            return ""
        _split_folder(image_folder(spec.source, spec.root).resolve(), "val")
    except DataError as error:
        return str(error)
    return ""


def log_opening(
    log: str | os.PathLike[str], source: str, purpose: str, about: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Appends one JSON line that says which test images were opened, when, by which commit and what for."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    entry = {"time": now, "commit": code_version(), "source": source, **about, "purpose": purpose}
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def code_version() -> str:
    """The commit this code is at, ``-dirty`` where files differ from it; for an installed wheel its version."""
    here = Path(__file__).resolve().parent
    commands = (
        [
            "ls-files",
            "--error-unmatch",
            Path(__file__).name,
        ],  # installed inside somebody's repository is not part of it
        ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
    )
    try:
        for command in commands:
            run = subprocess.run(
                ["git", "-C", str(here), *command], capture_output=True, text=True, timeout=20, check=True
            )
        return run.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        from importlib.metadata import PackageNotFoundError, version

        try:
            return f"gemnet {version('gemnet')}"
        except PackageNotFoundError:
            return "unknown"


def train_dev_split(
    labels: Tensor, classes: Sequence[str], dev_fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divides images into a training and a development part, each class in the same proportion.

    Args:
        labels: int64 (n,).
        classes: names, for messages.
        dev_fraction: share of each class that goes to the development part; at least one image, never all.
        seed: draws the division.

    Returns:
        Indices of the training part, shuffled class by class and interleaved so that every prefix holds the classes in
        proportion (a shorter training takes a prefix), and of the development part, ascending.

    Raises:
        DataError: a class with a single image.
    """
    rng = np.random.default_rng(seed)
    array = labels.numpy()
    train, place, dev = [], [], []
    for label, name in enumerate(classes):
        members = rng.permutation(np.flatnonzero(array == label))
        if len(members) < 2:
            raise DataError(
                f"Class {name!r} has {len(members)} training image(s); a training and a development image are needed. "
                "Add images or remove the class."
            )
        held_out = min(max(round(len(members) * dev_fraction), 1), len(members) - 1)
        dev.append(members[:held_out])
        rest = members[held_out:]
        train.append(rest)
        place.append((np.arange(len(rest)) + 0.5) / len(rest))
    order = np.argsort(np.concatenate(place), kind="stable")
    return np.concatenate(train)[order].astype(np.int64), np.sort(np.concatenate(dev)).astype(np.int64)


def _load(spec: DataSpec, split: str) -> ImageSet:
    if spec.source == "digits":
        return _digits(spec, split)
    if spec.source == "cifar10" and not (data_root(spec.root) / "cifar10").is_dir():
        return _torchvision_cifar10(spec, split)
    if spec.source.startswith(TIMM_PREFIXES):
        return _timm(spec, split)
    return _folder(image_folder(spec.source, spec.root), split, spec.resolution)


def image_folder(source: str, root: str | None = None) -> Path:
    """The folder that a path, or a name below the data root, stands for.

    Raises:
        DataError: there is none of that name; a path is not looked for here.
    """
    if any(mark in source for mark in "/\\~."):
        return Path(source).expanduser()
    for folder in (data_root(root) / source, Path(source)):
        if folder.is_dir():
            return folder
    raise DataError(
        f"Unknown data set {source!r}.{nearest(source, ('digits', 'cifar10'))} Or give the path of an image folder, "
        f"the name of one below {data_root(root)} (GEMNET_DATA says where that is), or a timm name that starts with "
        f"one of {', '.join(TIMM_PREFIXES)}."
    )


def list_images(folder: Path, split: str) -> tuple[tuple[str, ...], list[str], list[int]]:
    """Classes, paths and labels of an image folder, in alphabetical order, without opening an image.

    Args:
        folder: with ``train/<class>/*`` and ``val/<class>/*``, or ``<class>/*``.
        split: ``train`` or ``val``.

    Raises:
        DataError: missing, empty, of one class, or test images of other classes than the training images'.
    """
    classes, files, labels = _scan(_split_folder(folder.resolve(), split))
    return classes, [file.path for file in files], labels


def _digits(spec: DataSpec, split: str) -> ImageSet:
    """The 1,797 digits of scikit-learn. It has no official test part; a fifth, drawn once for all, serves as one."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.from_numpy(np.rint(data.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(data.target.astype(np.int64))
    classes = tuple(str(name) for name in data.target_names)
    train, val = train_dev_split(labels, classes, DIGITS_TEST_SHARE, DIGITS_TEST_SEED)
    index = torch.from_numpy(np.sort(train) if split == "train" else val)
    images = images[index]
    if spec.resolution not in (None, images.shape[2]):
        images = resize(images, spec.resolution)
    labels = labels[index]
    return ImageSet(images, labels, classes, _digest(images, labels, classes))


def resize(images: Tensor, resolution: int | None) -> Tensor:
    """Square uint8 images (n, c, h, h) at another resolution, antialiased bilinear; the same tensor if it is theirs."""
    if resolution is None or resolution == images.shape[2]:
        return images
    parts = [
        torch.nn.functional.interpolate(
            part, size=(resolution, resolution), mode="bilinear", antialias=True, align_corners=False
        )
        for part in images.split(4096)  # in parts: the intermediate sums are wider than bytes
    ]
    return torch.cat(parts)


def _folder(root: Path, split: str, resolution: int | None) -> ImageSet:
    """An image folder in torchvision's ImageFolder layout, any image type Pillow reads."""
    folder = _split_folder(root.resolve(), split)
    classes, files, labels = _scan(folder)
    manifest = hashlib.sha256(f"{CACHE_FORMAT} {resolution}\n".encode())
    for file in files:
        status = file.stat()
        manifest.update(f"{file.path} {status.st_size} {status.st_mtime_ns}\n".encode())

    def read(index: int) -> Image.Image:
        return Image.open(files[index].path)

    def decode() -> Tensor:
        return _decode(read, [file.path for file in files], resolution)

    return _cached(manifest.hexdigest()[:24], decode, labels, classes)


def _split_folder(root: Path, split: str) -> Path:
    if not root.is_dir():
        raise DataError(
            f"There is no image folder at {root}. Expected {root}/train/<class>/<images> or {root}/<class>/<images>; "
            "check the path, or set GEMNET_DATA to the folder the data sets lie in."
        )
    for name in SPLIT_FOLDERS[split]:
        if (root / name).is_dir():
            if split == "val":
                _check_test_classes(root, root / name)
            return root / name
    if split == "train" and not any((root / name).is_dir() for name in SPLIT_FOLDERS["val"]):
        return root
    wanted = " or ".join(repr(name) for name in SPLIT_FOLDERS[split])
    raise DataError(f"{root} has no subfolder {wanted} for its {'training' if split == 'train' else 'test'} images.")


def _class_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _check_test_classes(root: Path, test: Path) -> None:
    """Classes are numbered in alphabetical order: one more or less in the test images would shift all that follow."""
    learnt = next((root / name for name in SPLIT_FOLDERS["train"] if (root / name).is_dir()), None)
    if learnt is None:
        return
    names, known = ({path.name for path in _class_folders(folder)} for folder in (test, learnt))
    if names != known:
        missing = ", ".join(map(repr, sorted(known - names)[:5])) or "none"
        further = ", ".join(map(repr, sorted(names - known)[:5])) or "none"
        raise DataError(
            f"{test} has other classes than {learnt}: missing {missing}; only there {further}. Test images need the "
            "folders of the training images, and no others."
        )


def _scan(folder: Path) -> tuple[tuple[str, ...], list[os.DirEntry[str]], list[int]]:
    """Classes, files and labels of a folder, in alphabetical order."""
    subfolders = _class_folders(folder)
    if not subfolders:
        raise DataError(f"{folder} has no subfolders. Expected one for each class, with its images inside.")
    files: list[os.DirEntry[str]] = []
    labels: list[int] = []
    for label, subfolder in enumerate(subfolders):
        entries = sorted(_walk(subfolder), key=lambda entry: entry.path)
        images = [entry for entry in entries if os.path.splitext(entry.name)[1].lower() in IMAGE_EXTENSIONS]
        if not images:
            found = f"only files such as {entries[0].name!r}" if entries else "nothing"
            raise DataError(
                f"Class folder {subfolder} holds no images ({found}). Known types: "
                f"{', '.join(sorted(IMAGE_EXTENSIONS))}. Add images or remove the folder."
            )
        files += images
        labels += [label] * len(images)
    if len(subfolders) < 2:
        raise DataError(
            f"{folder} has one class only ({subfolders[0].name!r}); telling images apart takes at least two folders."
        )
    return tuple(path.name for path in subfolders), files, labels


def _walk(folder: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
    """All files below a folder but hidden ones. Directory entries know their kind: no extra look at each file."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(entry.path)
            elif entry.is_file():
                yield entry


def _torchvision_cifar10(spec: DataSpec, split: str) -> ImageSet:
    """CIFAR-10 as torchvision downloads it (its files are checked against known MD5 sums before they are opened)."""
    from torchvision.datasets import CIFAR10

    root = data_root(spec.root)
    try:
        data = CIFAR10(str(root), train=split == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"CIFAR-10 is not below {root} and could not be downloaded ({error}). Put it there as an image folder "
            f"({root}/cifar10/train/<class>/*) or as torchvision's {root}/cifar-10-batches-py, or set GEMNET_DATA to "
            "the folder it lies in."
        ) from None
    images = torch.from_numpy(np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)))
    images = resize(images, spec.resolution)
    labels = torch.tensor(data.targets, dtype=torch.int64)
    classes = tuple(data.classes)
    return ImageSet(images, labels, classes, _digest(images, labels, classes))


def _timm(spec: DataSpec, split: str) -> ImageSet:
    """Any data set timm can open by name; decoded once."""
    from timm.data import create_dataset

    root = data_root(spec.root)
    root.mkdir(parents=True, exist_ok=True)
    try:
        split_name = "train" if split == "train" else "validation"
        data: Any = create_dataset(spec.source, root=str(root), split=split_name, download=True)
        length = len(data)
    except Exception as error:  # torchvision, datasets and tfds each raise their own kinds
        raise DataError(
            f"timm could not open data set {spec.source!r} ({split}) below {root}: {type(error).__name__}: {error}"
        ) from None
    if not length:
        raise DataError(f"Data set {spec.source!r} ({split}) is empty.")
    labels: list[int] = [0] * length

    def read(index: int) -> Image.Image:
        image, labels[index] = data[index]
        return image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))

    probe = hashlib.sha256(f"{CACHE_FORMAT} {spec.source} {split} {length} {spec.resolution}".encode())
    for index in np.unique(np.linspace(0, length - 1, 64).astype(int)).tolist():
        probe.update(read(index).tobytes() + str(labels[index]).encode())

    names = [f"{spec.source}[{index}]" for index in range(length)]

    def decode() -> Tensor:
        return _decode(read, names, spec.resolution, workers=1)  # readers of streams are not thread-safe

    named = getattr(data, "classes", None) or getattr(getattr(data, "reader", None), "class_to_idx", None)
    return _cached(probe.hexdigest()[:24], decode, labels, tuple(map(str, named)) if named else None)


def _decode(
    read: Callable[[int], Image.Image], names: Sequence[str], resolution: int | None, workers: int | None = None
) -> Tensor:
    """Decodes images into one uint8 tensor (n, 3, side, side); grey ones have three equal channels."""

    def pixels(index: int) -> NDArray[np.uint8] | str:
        try:
            with read(index) as image:
                if resolution is not None:
                    image.draft(None, (resolution, resolution))  # JPEG: decode at a fraction of the size
                upright = ImageOps.exif_transpose(image).convert("RGB")
                if resolution is not None:
                    upright = ImageOps.fit(upright, (resolution, resolution), Image.Resampling.BICUBIC)
                return np.asarray(upright)
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            return str(error) or type(error).__name__

    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        images: NDArray[np.uint8] | None = None
        bad: list[str] = []
        other: list[str] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, file by file
            for index, result in enumerate(pool.map(pixels, range(len(names)), chunksize=64)):
                if isinstance(result, str):
                    bad.append(f"{names[index]} ({result})")
                    continue
                if images is None:
                    images = np.zeros((len(names), 3, *result.shape[:2]), dtype=np.uint8)
                    first = names[index]
                if result.shape[:2] != images.shape[2:] or result.shape[0] != result.shape[1]:
                    other.append(f"{names[index]} {result.shape[1]}x{result.shape[0]}")
                    continue
                images[index] = result.transpose(2, 0, 1)
    if bad:
        rest = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise DataError(
            f"{len(bad)} of {len(names)} images can't be read: {'; '.join(bad[:SHOWN])}{rest}. Replace or delete them."
        )
    assert images is not None
    if other:
        raise DataError(
            f"Images are not of one square size: {first} is {images.shape[3]}x{images.shape[2]}, but "
            f"{other[0]}. Set the data set's resolution, and they are resized and cropped to it."
        )
    return torch.from_numpy(images)


def _digest(images: Tensor, labels: Tensor, classes: Sequence[str]) -> str:
    content = hashlib.sha256(f"{tuple(images.shape)} {json.dumps(list(classes))}".encode())
    content.update(images.contiguous().numpy().data)
    content.update(labels.numpy().astype("<i8").tobytes())
    return content.hexdigest()[:16]


def _cached(key: str, decode: Callable[[], Tensor], labels: Sequence[int], classes: tuple[str, ...] | None) -> ImageSet:
    """Maps the set from the cache, decoding it into there first where it is missing."""
    folder = cache_root() / "images" / key
    if not (folder / "set.json").is_file():
        make_cache_folder(folder.parent)
        images = decode()
        targets = torch.tensor(labels, dtype=torch.int64)
        names = classes or tuple(str(label) for label in range(int(targets.max()) + 1))
        if len(names) < 2:
            raise DataError(f"The data set has one class only ({names[0]!r}); at least two are needed.")
        about = {"shape": list(images.shape), "classes": list(names), "digest": _digest(images, targets, names)}
        _store(folder, images, targets, about)
    about = json.loads((folder / "set.json").read_text(encoding="utf-8"))
    shape = about["shape"]
    # Private mapping: pages are shared by all processes until somebody writes, which nobody does.
    flat = torch.from_file(str(folder / "images.u8"), shared=False, size=int(np.prod(shape)), dtype=torch.uint8)
    targets = torch.from_numpy(np.load(folder / "labels.npy"))
    return ImageSet(flat.view(shape), targets, tuple(about["classes"]), about["digest"])


def _store(folder: Path, images: Tensor, labels: Tensor, about: dict[str, Any]) -> None:
    """Writes a cache entry in one step: whoever finds ``set.json`` finds all of it."""
    free = shutil.disk_usage(folder.parent).free
    if images.numel() > free:
        raise DataError(
            f"Decoded images take {images.numel() / 1e9:.1f} GB; {folder.parent} has {free / 1e9:.1f} GB free. "
            "Set GEMNET_CACHE to a folder with more space, or lower the resolution."
        )
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as scratch:
        images.numpy().tofile(Path(scratch) / "images.u8")
        np.save(Path(scratch) / "labels.npy", labels.numpy())
        (Path(scratch) / "set.json").write_text(json.dumps(about), encoding="utf-8")
        complete = Path(scratch) / "entry"
        complete.mkdir()
        for name in ("images.u8", "labels.npy", "set.json"):
            (Path(scratch) / name).rename(complete / name)
        try:
            complete.rename(folder)
        except OSError:  # another process was first: its entry is the same
            if not (folder / "set.json").is_file():
                raise

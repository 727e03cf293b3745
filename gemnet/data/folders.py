"""Image folders in torchvision's ImageFolder layout."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from torch import Tensor

from gemnet.data.decoded import CACHE_FORMAT, decode_images, from_cache
from gemnet.data.image_set import SHOWN, SPLIT_FOLDERS, TIMM_PREFIXES, TO_MEND, DataError, ImageSet, data_root
from gemnet.data.reading import image_extensions, read_image
from gemnet.errors import nearest

logger = logging.getLogger("gemnet.data")
USUAL = ".jpg, .png, .webp, .bmp, .gif, .tif"
"""Endings for a message; Pillow knows some eighty."""


def image_folder(source: str, root: str | None = None) -> Path:
    """The folder that a path, or a name below the data root, stands for.

    Raises:
        DataError: there is none of that name, or there are two; a path is not looked for here.
    """
    if any(mark in source for mark in "/\\~."):
        return Path(source).expanduser()
    folder = named_folder(source, root)
    if folder is not None:
        return folder
    raise DataError(
        f"Unknown data set {source!r}.{nearest(source, ('digits', 'digit_scenes', 'cifar10'))} Or give the path of an "
        f"image folder, the name of one below {data_root(root)} (GEMNET_DATA says where that is), or a timm name that "
        f"starts with one of {', '.join(TIMM_PREFIXES)}."
    )


def named_folder(name: str, root: str | None = None) -> Path | None:
    """The folder of a name in the current folder, or below the data root; None where there is none.

    Raises:
        DataError: there is one in both, and nobody could tell which was meant.
    """
    here, there = Path(name), data_root(root) / name
    found = [folder for folder in (here, there) if folder.is_dir()]
    if len(found) == 2 and not here.samefile(there):
        raise DataError(
            f"Two folders are called {name!r}: ./{name} in the current folder, and {there} below the data root. Give "
            f"the path of the one you mean: ./{name} or {there.resolve()}."
        )
    return found[0] if found else None


def list_images(folder: Path, split: str) -> tuple[tuple[str, ...], list[str], list[int]]:
    """Classes, paths and labels of an image folder, in alphabetical order, without opening an image.

    Args:
        folder: with ``train/<class>/*`` and ``val/<class>/*``, or ``<class>/*``.
        split: ``train`` or ``val``.

    Raises:
        DataError: missing, empty, of one class, or test images of other classes than the training images'.
    """
    classes, files, labels = _scan(split_folder(folder.resolve(), split))
    return classes, [file.path for file in files], labels


def read_folder(root: Path, split: str, resolution: int | None) -> ImageSet:
    """An image folder in torchvision's ImageFolder layout, any image type Pillow reads."""
    folder = split_folder(root.resolve(), split)
    classes, files, labels = _scan(folder)
    manifest = hashlib.sha256(f"{CACHE_FORMAT} {resolution}\n".encode())
    for file in files:
        status = file.stat()
        manifest.update(os.fsencode(file.path) + f" {status.st_size} {status.st_mtime_ns}\n".encode())

    def read(index: int) -> Image.Image:
        return read_image(files[index].path)

    def decode() -> Tensor:
        return decode_images(read, [file.path for file in files], resolution)

    return from_cache(manifest.hexdigest()[:24], decode, labels, classes)


def split_folder(root: Path, split: str) -> Path:
    if not root.is_dir():
        raise DataError(
            f"There is no image folder at {root}. Expected {root}/train/<class>/<images> or {root}/<class>/<images>; "
            "check the path, or set GEMNET_DATA to the folder the data sets lie in."
        )
    found = _part(root, split)
    if found is not None:
        if split == "val":
            _check_test_classes(root, found)
        return found
    if split == "train" and _part(root, "val") is None:
        return root
    wanted = " or ".join(repr(name) for name in SPLIT_FOLDERS[split])
    raise DataError(f"{root} has no subfolder {wanted} for its {'training' if split == 'train' else 'test'} images.")


def _part(root: Path, split: str) -> Path | None:
    """The folder of one part of a data set; ``Train`` is one, too, but a folder of images among others is a class."""
    folders = {path.name.lower(): path for path in _folders_in(root)}
    parts = [next((folders[name] for name in names if name in folders), None) for names in SPLIT_FOLDERS.values()]
    found = parts[list(SPLIT_FOLDERS).index(split)]
    if found is None or None not in parts:
        return found
    others = [path for path in _folders_in(root) if path != found and _has_images(path)]
    if others and not _folders_in(found) and _has_images(found):
        return None
    if others:
        names = ", ".join(path.name for path in others[:SHOWN])
        logger.warning(
            "%s is taken for the %s images, not for a class; folders beside it are left out: %s. If all are classes, "
            "move them to %s.",
            found,
            "training" if split == "train" else "test",
            names,
            root / "train" / "<class>",
        )
    return found


def _has_images(folder: Path) -> bool:
    return any(_ending(path.name) in image_extensions() and path.is_file() for path in _paths_in(folder))


def class_folders(folder: Path) -> list[Path]:
    """The folders in a folder but hidden ones, in alphabetical order: each is a class.

    Raises:
        DataError: it can't be read, or a name is no text.
    """
    found = _folders_in(folder)
    for path in found:
        try:
            path.name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"Class folder {os.fsencode(path)!r} has a name that is not UTF-8. Rename it: class names are kept "
                "with the weights."
            ) from None
    return found


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in _paths_in(folder) if path.is_dir())


def _paths_in(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder} can't be read ({error.strerror}). Check its permissions.") from None


def _check_test_classes(root: Path, test: Path) -> None:
    """Classes are numbered in alphabetical order: one more or less in the test images would shift all that follow."""
    learnt = _part(root, "train")
    if learnt is None:
        return
    names, known = ({path.name for path in class_folders(folder)} for folder in (test, learnt))
    if names != known:
        missing = ", ".join(map(repr, sorted(known - names)[:5])) or "none"
        further = ", ".join(map(repr, sorted(names - known)[:5])) or "none"
        raise DataError(
            f"{test} has other classes than {learnt}: missing {missing}; only there {further}. Test images need the "
            "folders of the training images, and no others."
        )


def _scan(folder: Path) -> tuple[tuple[str, ...], list[os.DirEntry[str]], list[int]]:
    """Classes, files and labels of a folder, in alphabetical order. What is no image is left out and counted."""
    subfolders = class_folders(folder)
    if not subfolders:
        raise DataError(f"{folder} has no subfolders. Expected one for each class, with its images inside.")
    loose = [path.name for path in _paths_in(folder) if _ending(path.name) in image_extensions() and path.is_file()]
    if loose:
        logger.warning(
            "%s: %d images lie beside the folders of the classes and are left out, such as %a. Move them into these.",
            folder,
            len(loose),
            min(loose),
        )
    files: list[os.DirEntry[str]] = []
    labels: list[int] = []
    others: list[str] = []
    bare: list[str] = []
    for label, subfolder in enumerate(subfolders):
        entries = sorted(files_below(subfolder), key=lambda entry: entry.path)
        images = [entry for entry in entries if _ending(entry.name) in image_extensions()]
        others += [entry.path for entry in entries if _ending(entry.name) not in image_extensions()]
        if not images:
            found = f"only files such as {entries[0].name!r}; {USUAL} and others are" if entries else "it is empty"
            bare.append(f"{subfolder} ({found})")
        files += images
        labels += [label] * len(images)
    if bare:
        rest = f" and {len(bare) - TO_MEND} more" if len(bare) > TO_MEND else ""
        raise DataError(
            f"Class folders without images: {', '.join(bare[:TO_MEND])}{rest}. Add images or remove the folders."
            if len(bare) > 1
            else f"Class folder {bare[0]} holds no images. Add images or remove the folder."
        )
    if len(subfolders) < 2:
        raise DataError(
            f"{folder} has one class only ({subfolders[0].name!r}); telling images apart takes at least two folders."
        )
    if others:
        endings = Counter(_ending(name) or "without an ending" for name in others).most_common(SHOWN)
        shown = ", ".join(f"{count} {ending}" for ending, count in endings)
        logger.warning("%s: %d files are no images and are left out: %s (%a).", folder, len(others), shown, others[0])
    return tuple(path.name for path in subfolders), files, labels


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def files_below(folder: str | os.PathLike[str], above: tuple[tuple[int, int], ...] = ()) -> Iterator[os.DirEntry[str]]:
    """All files below a folder but hidden ones. Directory entries know their kind: no extra look at each file."""
    try:
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        if here in above:
            raise DataError(f"{os.fspath(folder)!r} leads back to a folder it lies in. Remove this link.")
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    yield from files_below(entry.path, (*above, here))
                elif entry.is_file():
                    yield entry
    except OSError as error:
        raise DataError(f"{os.fspath(folder)!r} can't be read ({error.strerror}). Check its permissions.") from None

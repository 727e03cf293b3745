"""What is in images: a trained network, fed as it was trained, says classes and probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gemnet.data.folders import files_below
from gemnet.data.reading import ImageFileError, image_extensions, read_image
from gemnet.errors import GemnetError
from gemnet.metadata import Metadata
from gemnet.runtimes.images import Images, prepared
from gemnet.runtimes.networks import open_network
from gemnet.weights import packaged_weights

BATCH, BATCH_PIXELS = 64, 64 * 96 * 96
"""Images run at once: so many, or fewer where they are large."""


class InferenceError(GemnetError):
    """A network that can't classify, or images that aren't there."""


@dataclass(frozen=True)
class Classifier:
    """A network that classifies images.

    Args:
        name: to show.
        metadata: how images are prepared, and what the classes are called.
        logits: gives (n, classes) for prepared images (n, channels, side, side).
        one_by_one: whether it takes one image at a time.
    """

    name: str
    metadata: Metadata
    logits: Callable[[Images], NDArray[np.floating]]
    one_by_one: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; their numbers where they have none."""
        return self.metadata.classes or tuple(map(str, range(self.metadata.num_classes or 0)))

    def probabilities(self, files: Sequence[Path]) -> Iterator[NDArray[np.float64]]:
        """The softmax of each image's logits, (classes,), in the order of the files.

        Raises:
            ImageFileError: a file that is no image.
            InferenceError: logits that are not finite, as after a training that has diverged.
        """
        for found in self.answers(files):
            if isinstance(found, ImageFileError):
                raise found
            yield found

    def answers(self, files: Sequence[Path]) -> Iterator[NDArray[np.float64] | ImageFileError]:
        """As `probabilities`, and for a file that is no image what is wrong with it.

        Raises:
            InferenceError: logits that are not finite, as after a training that has diverged.
        """
        side = self.metadata.input_size or 1
        batch = 1 if self.one_by_one else max(1, min(BATCH, BATCH_PIXELS // side**2))
        for start in range(0, len(files), batch):
            read = [self._read(file) for file in files[start : start + batch]]
            images = [each for each in read if not isinstance(each, ImageFileError)]
            shares = iter(self._shares(np.stack(images)) if images else ())
            for each in read:
                yield each if isinstance(each, ImageFileError) else next(shares)

    def _read(self, file: Path) -> Images | ImageFileError:
        try:
            return prepared(read_image(file), self.metadata)
        except ImageFileError as error:
            return error

    def _shares(self, images: Images) -> NDArray[np.float64]:
        logits = self.logits(images).astype(np.float64)
        if not np.isfinite(logits).all():
            raise InferenceError("The network's logits are not finite. Its training has diverged; train it anew.")
        shares: NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Found:
    """Image files.

    Args:
        files: paths.
        labels: number of each one's class, (n,), -1 for images beside the folders of the classes; None where they lie
            in no folders of the network's classes.
        left_out: files that are no images.
        note: why some images, or all of a folder that seems to be one of labelled images, have no labels; else empty.
    """

    files: tuple[Path, ...]
    labels: NDArray[np.int64] | None
    left_out: int
    note: str = ""


def open_classifier(source: str, ema: bool = False) -> Classifier:
    """Opens a trained network or an exported ``.onnx`` file.

    Args:
        source: the folder of a search or a training, a checkpoint, weights, a tag such as ``gemnet_a.imagenette96``,
            or an ``.onnx`` file that `gemnet-export` wrote.
        ema: the moving average of the weights, where a checkpoint holds both.

    Raises:
        InferenceError: it has no trained weights, or says no classes.
        GemnetError: it can't be opened.
    """
    if source.endswith(".onnx"):
        return _open_onnx(Path(source).expanduser())
    network = open_network(source, ema)
    if not network.trained:
        tags = [name for name in packaged_weights() if name.startswith(f"{source}.")]
        trained = f"Trained ones are {' and '.join(tags)}." if tags else "Train it first."
        raise InferenceError(f"{source} has no trained weights, so that it would only guess. {trained}")

    def logits(images: Images) -> NDArray[np.floating]:
        with torch.inference_mode():
            found: NDArray[np.floating] = network.model(torch.from_numpy(images)).numpy()
            return found

    return _checked(Classifier(network.name, network.metadata, logits))


def find_images(places: Sequence[str], classes: Sequence[str]) -> Found:
    """The images that files and folders hold.

    Args:
        places: image files, and folders of them, at any depth.
        classes: the network's. A single folder whose folders all have their names gives the images in
            these labels.

    Raises:
        InferenceError: a place that is not there, or no image in any.
        DataError: a folder that can't be read.
    """
    files: list[Path] = []
    left_out = 0
    for place in places:
        path = Path(place).expanduser()
        if path.is_dir():
            below = sorted(Path(entry.path) for entry in files_below(path))
            images = [file for file in below if file.suffix.lower() in image_extensions()]
            files += images
            left_out += len(below) - len(images)
        elif path.exists():
            files.append(path)
        else:
            raise InferenceError(f"There is no image or folder {place}.")
    if not files:
        held = f"none of its {left_out} files is one" if left_out else "it is empty"
        raise InferenceError(f"{', '.join(places)} holds no images: {held}.")
    labels, note = _labels(places, files, classes)
    return Found(tuple(files), labels, left_out, note)


def _labels(
    places: Sequence[str], files: Sequence[Path], classes: Sequence[str]
) -> tuple[NDArray[np.int64] | None, str]:
    """Labels of the images, and a note where some or all have none."""
    root = Path(places[0]).expanduser()
    if len(places) != 1 or not root.is_dir():
        return None, ""
    parts = [file.relative_to(root).parts for file in files]
    numbers = {name: number for number, name in enumerate(classes)}
    folders = sorted({each[0] for each in parts if len(each) > 1})
    strangers = [name for name in folders if name not in numbers]
    if len(strangers) == len(folders):
        return None, ""
    if strangers:
        shown = ", ".join(strangers[:3]) + (", ..." if len(strangers) > 3 else "")
        return None, f"No accuracy: in {root} are folders that are none of the network's classes: {shown}."
    note, loose = "", [each[0] for each in parts if len(each) == 1]
    if loose:
        note = f"{len(loose)} of the images lie beside the classes' folders and have no label, such as {loose[0]}."
    return np.array([numbers[each[0]] if len(each) > 1 else -1 for each in parts], dtype=np.int64), note


def _open_onnx(file: Path) -> Classifier:
    try:
        import onnxruntime
    except ImportError:
        raise InferenceError("An .onnx file is run by onnxruntime: pip install 'gemnet[export]'") from None
    if not file.is_file():
        raise InferenceError(f"There is no file {file}.")
    try:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises kinds of its own
        raise InferenceError(f"{file} can't be opened: {' '.join(str(error).split())[:200]}") from None
    about = Metadata.from_texts(session.get_modelmeta().custom_metadata_map, file)
    wanted = session.get_inputs()[0]

    def logits(images: Images) -> NDArray[np.floating]:
        found: NDArray[np.floating] = session.run(None, {wanted.name: images})[0]
        return found

    return _checked(Classifier(file.stem, about, logits, one_by_one=wanted.shape[0] == 1))


def _checked(classifier: Classifier) -> Classifier:
    about = classifier.metadata
    if not classifier.classes:
        raise InferenceError(f"{classifier.name} has no classes: it gives features only.")
    if about.input_size is None or about.mean is None or about.crop_pct is None or about.interpolation is None:
        raise InferenceError(
            f"{classifier.name} doesn't say how its images are prepared (input size, crop, interpolation, mean, std). "
            "Export or save it again with this version."
        )
    return classifier

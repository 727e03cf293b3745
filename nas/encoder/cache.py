"""Trained encoders on disk: those that come with the package, and those this user has trained."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from gemnet.cache import cache_root, make_cache_folder
from gemnet.files import replacing, verify_sha256, write_named, write_text
from nas.encoder.model import GraphNetwork
from nas.encoder.training import Encoder, EncoderConfig, Progress, config_key, train_encoder
from nas.spaces.base import SearchSpace

ENCODER_VERSION = 1
"""Raise it when a change of code makes other encoders of the same options: the old ones are then not used any more."""
PACKAGED = Path(__file__).with_name("trained")
"""Encoders of the package, and ``index.json``: key -> file and its sha256."""


def encoder_key(space: SearchSpace, config: EncoderConfig) -> str:
    """32 hex digits of all an encoder depends on: `ENCODER_VERSION`, vocabulary, a draw of the space's graphs, config.

    Macro choices are no part of it, since an encoder sees graphs only.
    """
    plain = [
        ENCODER_VERSION,
        space.name,
        space.vocabulary,
        sorted(space.zero_ops),
        sorted(space.identity_ops),
        config_key(config),
    ]
    digest = hashlib.sha256(json.dumps(plain).encode())
    graphs = space.sample(64, np.random.default_rng(0)).graphs
    for array in (graphs.sizes, graphs.ops, graphs.successors):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:32]


def load_or_train(
    space: SearchSpace,
    config: EncoderConfig = EncoderConfig(),  # noqa: B008  frozen
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Encoder:
    """The encoder of a space: from the package or the cache, else trained and put into the cache.

    Args:
        space: gives graphs to learn from.
        config: how to build and train.
        cache_dir: where trained encoders are kept; None for `gemnet.cache.cache_root`.
        progress: called after each training step with (step, steps, loss); never where the encoder is there already.

    Raises:
        CacheError: the cache can't be written to, before anything is trained.
        GemnetError: an encoder of the package is damaged.
    """
    key = encoder_key(space, config)
    encoder = _packaged(key, space, config)
    if encoder is None:
        path = (cache_root() if cache_dir is None else Path(cache_dir)) / "encoders" / f"{space.name}-{key}.safetensors"
        try:
            encoder = _load(path, space, config)
        except (OSError, SafetensorError, ValueError, RuntimeError, KeyError):  # cut short by a full disk, say
            make_cache_folder(path.parent)
            encoder = train_encoder(space, config, progress)
            save_encoder(path, encoder)
    return encoder


def has_encoder(space: SearchSpace, config: EncoderConfig) -> bool:
    """Whether `load_or_train` finds an encoder; one that is there but damaged counts."""
    key = encoder_key(space, config)
    return key in _index() or (cache_root() / "encoders" / f"{space.name}-{key}.safetensors").is_file()


def package_encoder(space: SearchSpace, config: EncoderConfig) -> Path:
    """Trains an encoder and makes it one of the package's; encoders of the same space and another version go.

    Returns:
        Its file, named by the first eight hex digits of its sha256.
    """
    PACKAGED.mkdir(exist_ok=True)
    encoder = train_encoder(space, config)
    path, digest = write_named(PACKAGED, space.name, lambda draft: save_encoder(draft, encoder))
    index = {key: entry for key, entry in _index().items() if entry["version"] == ENCODER_VERSION}
    index[encoder_key(space, config)] = {"file": path.name, "sha256": digest, "version": ENCODER_VERSION}
    write_text(PACKAGED / "index.json", json.dumps(index, indent=1) + "\n")
    for file in PACKAGED.glob("*.safetensors"):
        if file.name not in {entry["file"] for entry in index.values()}:
            file.unlink()
    return path


def save_encoder(path: Path, encoder: Encoder) -> None:
    """Writes an encoder's weights as safetensors, its report in the metadata."""
    arrays = {name: tensor.numpy() for name, tensor in encoder.network.state_dict().items()}
    with replacing(path) as draft:
        save_file(arrays, draft, metadata={"report": json.dumps(encoder.report)})


def _index() -> dict[str, dict[str, str | int]]:
    file = PACKAGED / "index.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _packaged(key: str, space: SearchSpace, config: EncoderConfig) -> Encoder | None:
    entry = _index().get(key)
    if entry is None:
        return None
    path = PACKAGED / str(entry["file"])
    verify_sha256(path, str(entry["sha256"]), "Install the package again.")
    return _load(path, space, config)


def _load(path: Path, space: SearchSpace, config: EncoderConfig) -> Encoder:
    network = GraphNetwork(len(space.vocabulary), config.hidden, config.rounds, config.dimension)
    with safe_open(path, framework="pt") as file:
        report = json.loads(file.metadata()["report"])
        tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  a file of tensors, no dict
    network.load_state_dict(tensors)
    return Encoder(network, space.vocabulary, space.zero_ops, config, report)

"""Trained encoders on disk, found again by what they were trained from."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from gemnet.cache import cache_root, make_cache_folder
from nas.encoder.model import GraphNetwork
from nas.encoder.training import Encoder, EncoderConfig, Progress, config_key, train_encoder
from nas.spaces.base import SearchSpace

ENCODER_VERSION = 1
"""Raise it when a change of code trains other encoders: those in the cache are then not found again."""


def encoder_key(space: SearchSpace, config: EncoderConfig) -> str:
    """32 hex digits of all an encoder depends on: vocabulary, a draw of graphs and of edits, config, version."""
    rng = np.random.default_rng(0)
    first = space.sample(64, rng)
    edited = space.mutate(first, rng).graphs
    digest = hashlib.sha256()
    plain = [
        ENCODER_VERSION,
        space.name,
        space.vocabulary,
        sorted(space.zero_ops),
        sorted(space.identity_ops),
        config_key(config),
    ]
    digest.update(json.dumps(plain).encode())
    for graphs in (first.graphs, edited):
        for array in (graphs.sizes, graphs.ops, graphs.successors):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:32]


def load_or_train(
    space: SearchSpace,
    config: EncoderConfig = EncoderConfig(),  # noqa: B008  frozen
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Encoder:
    """The encoder of a space: from the cache, else trained and put there.

    Args:
        space: gives graphs to learn from.
        config: how to build and train.
        cache_dir: where trained encoders are kept; None for `gemnet.cache.cache_root`.
        progress: called after each training step with (step, steps, loss); never where the cache has the encoder.

    Raises:
        CacheError: the cache can't be written to, before anything is trained.
    """
    root = cache_root() if cache_dir is None else Path(cache_dir)
    path = root / "encoders" / f"{space.name}-{encoder_key(space, config)}.safetensors"
    encoder = _load(path, space, config)
    if encoder is None:
        make_cache_folder(path.parent)
        encoder = train_encoder(space, config, progress)
        _save(path, encoder)
    return encoder


def _load(path: Path, space: SearchSpace, config: EncoderConfig) -> Encoder | None:
    network = GraphNetwork(len(space.vocabulary), config.hidden, config.rounds, config.dimension)
    try:
        tensors = load_file(path)
        report = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        network.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})
    except (OSError, SafetensorError, ValueError, RuntimeError):
        return None  # absent, or cut short by a full disk: a cache may always be filled again
    return Encoder(network, space.vocabulary, space.zero_ops, config, report)


def _save(path: Path, encoder: Encoder) -> None:
    arrays = {name: tensor.numpy() for name, tensor in encoder.network.state_dict().items()}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        # Written aside and moved, so that a search that starts meanwhile finds a whole file or none; weights last.
        weights, report = Path(folder) / "weights", Path(folder) / "report"
        save_file(arrays, weights)
        report.write_text(json.dumps(encoder.report), encoding="utf-8")
        os.replace(report, path.with_suffix(".json"))
        os.replace(weights, path)

"""Trained weights as a Hugging Face style folder, and from there to a hub.

The folder holds ``config.json`` and ``model.safetensors``, no pickle. After ``import gemnet`` timm reads it:
``timm.create_model('local-dir:folder', pretrained=True)``, or ``hf-hub:owner/name`` once it is pushed. The genome is in
the config, so the folder stands alone, whatever a later version of GEMNet calls by the name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm

from gemnet.metadata import save_weights
from gemnet.quoting import printable
from gemnet.strict_json import JsonError, read_json
from gemnet.trained import TrainedNetwork, find_trained
from gemnet.weights import packaged_weights, verify_folder
from gemnet.zoo.results import ZooError

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FILES = frozenset((CONFIG, WEIGHTS, CARD, ".gitattributes"))


class HubError(ZooError):
    """A folder that can't be pushed: not one of ours, no token, or the hub refused it."""


def write_folder(source: str | os.PathLike[str], folder: Path, card: Path | None = None, ema: bool = False) -> Path:
    """Writes the folder of a trained network.

    Args:
        source: ``<architecture>.<tag>`` of published weights, or whatever else `gemnet.trained.find_trained` finds: the
            folder of a search or a training, a checkpoint, weights.
        folder: where to; must not exist, or be empty.
        card: Markdown that becomes the folder's README.
        ema: the moving average of the weights, where a checkpoint holds both.

    Raises:
        ZooError: the folder holds something, or can't be written.
        GemnetError: there are no such weights, they are damaged, or don't say what network they are of.
    """
    found = find_trained(source, ema)
    state = found.state_dict()
    published = os.fspath(source) in packaged_weights()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ZooError(f"{folder} is there already and not empty. Choose another --out, or move it away.")
    about = found.metadata
    name = os.fspath(source) if published else about.arch or (about.genome and about.genome.name) or "gemnet"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if published and found.weights is not None:
            shutil.copyfile(found.weights, folder / WEIGHTS)  # with its checksum
        else:
            save_weights(folder / WEIGHTS, state, about)
        digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        config = _described(found, name.partition(".")[2])
        config["gemnet"] = {"name": name, "fingerprint": about.fingerprint, "sha256": digest}
        (folder / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if card is not None:
            shutil.copyfile(card, folder / CARD)
    except OSError as error:
        raise ZooError(f"{folder} can't be written ({error.strerror}). Choose another --out.") from None
    return folder


def _described(found: TrainedNetwork, tag: str) -> dict[str, Any]:
    """``config.json``: what timm builds the network from, and feeds it."""
    about = found.metadata
    model: Any = found.build("meta")
    if about.genome is not None:
        architecture, arguments = "gemnet", {"genome": found.genome.to_dict()}
        known = timm.get_pretrained_cfg("gemnet").to_dict()
        side = found.genome.input_size if about.input_size is None else about.input_size
        last = -(-side // found.genome.levels[-1].reduction)
        known["pool_size"] = [last, last]
        known["input_size"] = [about.in_chans or 3, side, side]
    else:
        architecture, arguments = about.arch, dict(about.options)
        known = dict(model.pretrained_cfg)
    kept = ("input_size", "pool_size", "first_conv", "classifier", "interpolation", "license", "paper_ids")
    configuration = {key: known[key] for key in kept if known.get(key) is not None}
    said = about.pretrained_cfg()
    names = said.pop("label_names", None)
    return {
        "architecture": architecture,
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "global_pool": "avg",
        **({"label_names": names} if names else {}),
        "model_args": arguments,
        "pretrained_cfg": {
            **configuration,
            "tag": tag,
            "custom_load": False,
            "num_classes": model.num_classes,
            **said,
        },
    }


def push_folder(
    folder: Path, repo: str, token: str | None = None, private: bool = False, endpoint: str | None = None
) -> str:
    """Uploads a folder to a hub; the repository is made where there is none.

    Args:
        folder: as `write_folder` makes it.
        repo: ``<owner>/<name>``.
        token: of an account that may write there; the one huggingface_hub knows by default (``HF_TOKEN``, ``hf auth
            login``).
        private: whether a new repository is seen by its owner only.
        endpoint: address of a hub; Hugging Face's by default.

    Returns:
        Where it can be seen.

    Raises:
        HubError: not such a folder, no token, or the hub refused it.
    """
    _check(folder)
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise HubError(f"--repo is {repo!r}, expected <owner>/<name>, such as me/gemnet_a_cifar.")
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HFValidationError

    token = token or get_token()
    if not token:
        raise HubError(
            f"There is no token to write to {repo!r} with. Set HF_TOKEN, run `hf auth login`, or give --token; tokens "
            "are made at https://huggingface.co/settings/tokens and need the right to write."
        )
    api = HfApi(token=token, endpoint=endpoint, library_name="gemnet")
    try:
        made = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id,
            folder_path=str(folder),
            allow_patterns=sorted(FILES),
            commit_message=printable(f"Add {_config(folder)['gemnet']['name']}"),
        )
    except HFValidationError as error:
        raise HubError(f"--repo is {repo!r}, which is no name of a repository: {error}") from None
    except Exception as error:  # which library carries the requests depends on huggingface_hub's version
        text = " ".join(str(error).split())[:300]
        raise HubError(f"The hub did not take {folder} as {repo!r}: {type(error).__name__}: {text}") from None
    return str(made)


def _check(folder: Path) -> None:
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise HubError(
            f"{folder} holds no {CONFIG} and {WEIGHTS}. Make it by `tools/zoo.py folder NAME --out {folder}`."
        )
    others = sorted(item.name for item in folder.iterdir() if item.name not in FILES)
    if others:
        raise HubError(f"{folder} holds {', '.join(others[:3])}, which would not be pushed. Move it away first.")
    about = _config(folder).get("gemnet")
    if not isinstance(about, Mapping) or not {"name", "fingerprint", "sha256"} <= set(about):
        raise HubError(f"{folder / CONFIG} is not of `tools/zoo.py folder`: it has no 'gemnet' part.")
    verify_folder(folder, about["fingerprint"])


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = read_json(folder / CONFIG)
    except (OSError, JsonError) as error:
        raise HubError(f"{folder / CONFIG} can't be read: {error}") from None
    if not isinstance(config, dict):
        raise HubError(f"{folder / CONFIG} is no mapping.")
    return config

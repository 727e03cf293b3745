"""Published weights as a Hugging Face style folder, and from there to a hub.

The folder holds ``config.json`` and ``model.safetensors``, no pickle. After ``import gemnet`` timm reads it:
``timm.create_model('local-dir:folder', pretrained=True)``, or ``hf-hub:owner/name`` once it is pushed. The genome is in
the config, so the folder stands alone, whatever a later version of GEMNet calls by the name.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm

from gemnet.models import genome_for
from gemnet.weights import find_weights, verify_folder, verify_weights
from gemnet.zoo.results import ZooError

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FILES = frozenset((CONFIG, WEIGHTS, CARD, ".gitattributes"))


class HubError(ZooError):
    """A folder that can't be pushed: not one of ours, no token, or the hub refused it."""


def write_folder(name: str, folder: Path, card: Path | None = None) -> Path:
    """Writes the folder of published weights.

    Args:
        name: ``<architecture>.<tag>``.
        folder: where to; must not exist, or be empty.
        card: Markdown that becomes the folder's README.

    Raises:
        ZooError: the folder holds something.
        GemnetError: there are no such weights, or they are damaged.
    """
    weights = find_weights(name)
    source = verify_weights(weights)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ZooError(f"{folder} is there already and not empty. Choose another --out, or move it away.")
    genome = genome_for(name)
    arch, _, tag = name.partition(".")
    known = timm.get_pretrained_cfg(arch).to_dict()
    last = -(-weights.input_size // genome.levels[-1].reduction)
    config: dict[str, Any] = {
        "architecture": "gemnet",
        "num_classes": weights.num_classes,
        "num_features": genome.num_features,
        "global_pool": "avg",
        **({"label_names": weights.classes} if weights.classes else {}),
        "model_args": {"genome": genome.replace(name=genome.name or arch).to_dict()},
        "pretrained_cfg": {
            **{key: known[key] for key in ("first_conv", "classifier", "interpolation", "license", "paper_ids")},
            "tag": tag,
            "custom_load": False,
            "input_size": [3, weights.input_size, weights.input_size],
            "pool_size": [last, last],
            "crop_pct": weights.crop_pct,
            "mean": weights.mean,
            "std": weights.std,
            "num_classes": weights.num_classes,
            "description": weights.description,
        },
        "gemnet": {"name": name, "fingerprint": weights.fingerprint, "sha256": weights.sha256},
    }
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if card is not None:
        shutil.copyfile(card, folder / CARD)
    return folder


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
            commit_message=f"Add {_config(folder)['gemnet']['name']}",
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
        return json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise HubError(f"{folder / CONFIG}: not JSON ({error}).") from None

"""Reading checkpoints without running what is in them.

A ``.pth`` file is a pickle, and unpickling can run anything. PyTorch can read tensors and plain data only
(``weights_only=True``), but mmengine tries that first and falls back to full unpickling when it fails, which is just
what a malicious file makes it do. `load_checkpoint` never falls back, and `guard_mmengine` puts it in the place of
mmengine's loader, for loading and resuming alike.
"""

from __future__ import annotations

import ast
import os
import pickle
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor, nn

from gemnet.errors import GemnetError

KEY = "gemnet"
"""Where a checkpoint holds what its weights say about themselves (`gemnet.metadata`): in ``meta`` of mmengine's."""


class CheckpointError(GemnetError):
    """A checkpoint that is missing, damaged, unsafe, or belongs to another network."""


def load_checkpoint(path: str | os.PathLike[str], map_location: Any = "cpu") -> dict[str, Any]:
    """Reads a ``.pth`` or ``.safetensors`` file; tensors and plain data only.

    Args:
        path: the file.
        map_location: device for the tensors, as in `torch.load`.

    Returns:
        What the file holds; a safetensors file as ``{"state_dict": ...}``, with its metadata under ``gemnet`` and the
        fingerprint of the ``genome`` its weights belong to where it says so.

    Raises:
        CheckpointError: no such file, not a checkpoint, or one that holds anything but tensors, numbers, texts, their
            containers and mmengine's log histories.
    """
    name = os.path.expanduser(os.fspath(path))
    if not os.path.isfile(name):
        raise CheckpointError(f"{name}: there is no such file. Give the path of a .pth or .safetensors file.")
    if name.endswith(".safetensors"):
        return _load_safetensors(name, map_location)
    return _load_pickle(name, name, map_location)


def _load_pickle(file: str | IO[bytes], name: str, map_location: Any) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals(_harmless_types()):
            loaded = torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        # torch wraps the reason in advice to load the file unsafely
        reason = str(error.__context__ or error).split("WeightsUnpickler error:")[-1]
        reason = reason.split(" Please use")[0].strip().splitlines()[0]
        raise CheckpointError(
            f"{name}: refused, because it holds more than tensors and plain data: {reason} Nothing of it was run. If "
            "you trust the file, load it yourself with torch.load and save its 'state_dict' alone."
        ) from None
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{name}: can't be read as a checkpoint ({text}). Is the file complete?") from None
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{name}: holds a {type(loaded).__name__}; expected a dict with a 'state_dict'.")
    return _without_code(loaded)


def state_dict_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights in a checkpoint: under ``state_dict`` or ``model``, or the mapping itself."""
    for key in ("state_dict", "model"):
        if isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
            break
    return {key.removeprefix("module."): value for key, value in checkpoint.items() if isinstance(value, Tensor)}


def describe_mismatch(module: nn.Module, state_dict: Mapping[str, Tensor], extra_is_fine: bool = False) -> str:
    """How a state dict differs from what a module has; empty when it fits.

    Args:
        module: the network.
        state_dict: tensors by key.
        extra_is_fine: whether keys that the module lacks may be there.

    Returns:
        Such as ``"2 keys are missing (a, b); 1 has another shape (c: (3,), expected (4,))"``.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state_dict]
    extra = [] if extra_is_fine else [key for key in state_dict if key not in own]
    other = [
        f"{key}: {tuple(state_dict[key].shape)}, expected {tuple(value.shape)}"
        for key, value in own.items()
        if key in state_dict and state_dict[key].shape != value.shape
    ]
    parts = []
    for keys, words in (
        (missing, "missing"),
        (extra, "not known to this network"),
        (other, "of another shape"),
    ):
        if keys:
            shown = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
            parts.append(f"{len(keys)} {'key is' if len(keys) == 1 else 'keys are'} {words} ({shown})")
    return "; ".join(parts)


def guard_mmengine() -> None:
    """Makes mmengine read checkpoints, wherever they lie, as `load_checkpoint` does. May be called again."""
    from mmengine.runner import checkpoint

    loader = checkpoint.CheckpointLoader
    loader.register_scheme(prefixes="", loader=_load_from_local, force=True)
    loader.register_scheme(prefixes=("http://", "https://"), loader=_load_from_http, force=True)
    # What the other schemes (torchvision://, open-mmlab://, s3://, ...) end in.
    checkpoint.load_from_http = _load_from_http
    checkpoint._safe_torch_load = _load_from_anything


# mmengine's log line names the loader by its function's name from the tenth letter on.
def _load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    return load_checkpoint(filename, map_location)


def _load_from_http(filename: str, map_location: Any = None, **options: Any) -> dict[str, Any]:
    path = os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(filename))
    if not os.path.isfile(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        torch.hub.download_url_to_file(filename, path, progress=False)
    return load_checkpoint(path, map_location)


def _load_from_anything(file: str | IO[bytes], map_location: Any = None, **options: Any) -> dict[str, Any]:
    if isinstance(file, str | os.PathLike):
        return load_checkpoint(file, map_location)
    return _load_pickle(file, "the checkpoint", map_location)


def _load_safetensors(name: str, map_location: Any) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        tensors = load_file(name)
        with safe_open(name, framework="pt") as file:
            about = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{name}: can't be read as safetensors ({error}). Is the file complete?") from None
    place = map_location if isinstance(map_location, str | torch.device) else "cpu"
    genome = {"genome": about["genome"]} if "genome" in about else {}
    return {"state_dict": {key: value.to(place) for key, value in tensors.items()}, KEY: dict(about), **genome}


def _harmless_types() -> list[Any]:
    """Types that mmengine's checkpoints hold beside tensors; each only stores what it is given."""
    from mmengine.logging.history_buffer import HistoryBuffer

    dtypes = [type(np.dtype(kind)) for kind in (np.bool_, np.int32, np.int64, np.uint32, np.float32, np.float64)]
    multiarray = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray  # type: ignore[attr-defined]
    lookups = [(_history_method, f"{module}.getattr") for module in ("builtins", "__builtin__")]
    return [HistoryBuffer, np.ndarray, np.dtype, multiarray._reconstruct, multiarray.scalar, slice, *dtypes, *lookups]


def _history_method(owner: Any, name: str) -> Any:
    """What ``getattr`` is inside a checkpoint: log histories refer to their own statistics by it, and nothing else may.

    Raises:
        UnpicklingError: anything else is looked up.
    """
    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is not HistoryBuffer or name not in ("min", "max", "current", "mean"):
        raise pickle.UnpicklingError(f"getattr of {owner!r}, {name!r}")
    return getattr(owner, name)


def _without_code(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Drops configs in ``meta`` that are more than assignments of plain data: mmengine runs them as Python."""
    meta = checkpoint.get("meta")
    if isinstance(meta, dict):
        # Runner.save_checkpoint writes 'cfg'; 'config' is never written, yet executed on resume.
        meta.pop("config", None)
        if "cfg" in meta and not (isinstance(meta["cfg"], str) and _is_plain_config(meta["cfg"])):
            meta.pop("cfg")
    return checkpoint


def _is_plain_config(text: str) -> bool:
    """Whether a dumped config holds nothing but ``name = value`` with literals and calls of ``dict``."""
    allowed = (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.UnaryOp, ast.keyword, ast.Load, ast.USub)
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return False
    for statement in tree.body:
        if not isinstance(statement, ast.Assign) or not all(isinstance(t, ast.Name) for t in statement.targets):
            return False
        for node in ast.walk(statement.value):
            if isinstance(node, ast.Call):
                if not (isinstance(node.func, ast.Name) and node.func.id == "dict"):
                    return False
            elif isinstance(node, ast.Name):
                if node.id != "dict":
                    return False
            elif not isinstance(node, allowed):
                return False
    return True

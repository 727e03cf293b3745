"""Reading checkpoints without running what is in them.

A ``.pth`` file is a pickle, and unpickling can run anything. PyTorch can read tensors and plain data only
(``weights_only=True``), but mmengine tries that first and falls back to full unpickling when it fails, which is just
what a malicious file makes it do. `load_checkpoint` never falls back, and `guard_mmengine` puts it in the place of
mmengine's loader, for loading and resuming alike.
"""

from __future__ import annotations

import argparse
import ast
import os
import pickle
from collections.abc import Collection, Mapping
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
    except CheckpointError:
        raise
    except Exception as error:  # a file that is no checkpoint, or was made to look like one, fails anywhere in torch
        raise CheckpointError(
            f"{name}: can't be read as a checkpoint ({_reason(error)}). Is the file complete?"
        ) from None
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{name}: holds a {type(loaded).__name__}; expected a dict with a 'state_dict'.")
    return _without_code(loaded)


def _reason(error: Exception) -> str:
    """The first sentence of an error; torch's next ones give advice that no file from elsewhere is worth."""
    text = (str(error).splitlines() or [""])[0].split(". ")[0][:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


WEIGHTS_KEYS = ("state_dict", "model", "model_state_dict", "net", "network")
AVERAGE_KEYS = ("state_dict_ema", "model_ema", "ema")
"""Where checkpoints of other programs keep weights, and their moving average."""


def state_dict_of(checkpoint: Mapping[str, Any], ema: bool = False) -> dict[str, Tensor]:
    """The weights in a checkpoint: under one of the usual keys, or the mapping itself.

    What `torch.compile` and parallel training put before the keys is taken off; see `aligned` for other prefixes.

    Args:
        checkpoint: what `load_checkpoint` gave.
        ema: the moving average of the weights. In mmengine's checkpoints with an EMAHook that is the ``state_dict``.

    Raises:
        CheckpointError: there is no average, or a tensor that is not what it seems.
    """
    found: Any = next((checkpoint[key] for key in WEIGHTS_KEYS if isinstance(checkpoint.get(key), Mapping)), checkpoint)
    if ema and not has_average(checkpoint):
        raise CheckpointError("The checkpoint holds no moving average of its weights. Leave out --ema.")
    if ema and "ema_state_dict" not in checkpoint:
        found = next(checkpoint[key] for key in AVERAGE_KEYS if isinstance(checkpoint.get(key), Mapping))
        found = next((found[key] for key in WEIGHTS_KEYS if isinstance(found.get(key), Mapping)), found)
    weights = {}
    for key, value in found.items():
        if isinstance(key, str) and isinstance(value, Tensor):
            _check_tensor(key, value)
            weights[key.replace("_orig_mod.", "").removeprefix("module.")] = value
    return weights


def has_average(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint holds a moving average of its weights."""
    return any(isinstance(checkpoint.get(key), Mapping) for key in (*AVERAGE_KEYS, "ema_state_dict"))


def _check_tensor(key: str, value: Tensor) -> None:
    """Refuses tensors that stand for more memory than their file has: a copy of one would fill the machine."""
    plain = value.layout == torch.strided and value.device.type != "meta" and not value.is_quantized
    if not plain or value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise CheckpointError(
            f"The checkpoint's {key[:100]!r} is no plain tensor: weights have a value for each place."
        )


def aligned(weights: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """Weights under the keys of a module, where all that differs is a prefix.

    Wrappers put one before the keys (``model.``, ``net.``, ``network.``, a detector's ``backbone.``); where the module
    is itself wrapped, weights of the bare network lack it.

    Args:
        weights: tensors by key.
        own: the module's keys.

    Returns:
        The weights, with the prefix taken off or put before that lets most keys fit; others are kept as they are.
    """
    best, hits = dict(weights), sum(key in weights for key in own)
    for one in list(own)[:1]:
        for prefix in sorted({key[: -len(one)] for key in weights if key.endswith("." + one)}, key=len):
            count = sum(prefix + key in weights for key in own)
            if count > hits:
                best, hits = {key.removeprefix(prefix): value for key, value in weights.items()}, count
    for one in list(weights)[:1]:
        for prefix in sorted({key[: -len(one)] for key in own if key.endswith("." + one)}, key=len):
            count = sum(prefix + key in own for key in weights)
            if count > hits:
                best, hits = {prefix + key: value for key, value in weights.items()}, count
    return best


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
    guard_yaml()


def guard_yaml() -> None:
    """Makes mmengine read YAML as data: its own reader builds whatever object a tag asks for. May be called again."""
    import yaml  # type: ignore[import-untyped]
    from mmengine.fileio.handlers import yaml_handler

    yaml_handler.Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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
    """Types that checkpoints of mmengine and timm hold beside tensors; each only stores what it is given."""
    from mmengine.logging.history_buffer import HistoryBuffer

    dtypes = [type(np.dtype(kind)) for kind in (np.bool_, np.int32, np.int64, np.uint32, np.float32, np.float64)]
    multiarray = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray  # type: ignore[attr-defined]
    lookups = [(_history_method, f"{module}.getattr") for module in ("builtins", "__builtin__")]
    known = [HistoryBuffer, argparse.Namespace, np.ndarray, np.dtype, multiarray._reconstruct, multiarray.scalar, slice]
    return [*known, *dtypes, *lookups]


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
    """Drops configs that are more than assignments of plain data, wherever mmengine looks for one: it runs them."""
    meta = checkpoint.get("meta")
    if isinstance(meta, dict):
        meta.pop("config", None)  # never written by mmengine, yet executed when a training is resumed
    hub = checkpoint.get("message_hub")
    for place in (meta, hub.get("runtime_info") if isinstance(hub, dict) else None):
        if isinstance(place, dict) and "cfg" in place:
            text = place["cfg"]
            if not (isinstance(text, str) and is_plain_config(text)):
                place.pop("cfg")
    return checkpoint


PACKAGES = ("gemnet", "nas", "mmengine", "mmcv", "mmdet")
"""Whose parts a config inside a checkpoint may name."""


def is_plain_config(text: str) -> bool:
    """Whether a dumped config does nothing but put parts of ours and of MMDetection together.

    It holds ``name = value`` with literals and calls of ``dict``; bases, templates and imports of others' modules would
    run or read files, and a ``type`` that is a dotted path is called, whatever it is.
    """
    data: dict[str, Any] = {}
    try:
        for statement in ast.parse(text).body:
            if not isinstance(statement, ast.Assign):
                return False
            for target in statement.targets:
                if not isinstance(target, ast.Name):
                    return False
                data[target.id] = _plain_value(statement.value)
    except (SyntaxError, ValueError, TypeError, RecursionError):
        return False
    if "_base_" in data or "{{" in text:
        return False
    imports = data.pop("custom_imports", None) or {}
    modules = imports.get("imports", ()) if isinstance(imports, dict) else ()
    names = [modules] if isinstance(modules, str) else list(modules)
    return all(str(name).split(".")[0] in PACKAGES for name in names) and _names_only_parts(data)


def _plain_value(node: ast.expr) -> Any:
    """The value of a literal in which ``dict(a=1)`` may stand for ``{'a': 1}``.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(node, ast.Call):
        if not (isinstance(node.func, ast.Name) and node.func.id == "dict") or node.args:
            raise ValueError("a call")
        if any(each.arg is None for each in node.keywords):
            raise ValueError("a call")
        return {each.arg: _plain_value(each.value) for each in node.keywords}
    if isinstance(node, ast.List | ast.Tuple):
        return [_plain_value(each) for each in node.elts]
    if isinstance(node, ast.Dict):
        if None in node.keys:
            raise ValueError("an expansion")
        keys = [ast.literal_eval(key) for key in node.keys if key is not None]
        return dict(zip(keys, map(_plain_value, node.values), strict=True))
    return ast.literal_eval(node)


def _names_only_parts(value: Any) -> bool:
    """Whether each ``type`` is a name of a registry, with one of `PACKAGES` before it or none."""
    if isinstance(value, list):
        return all(map(_names_only_parts, value))
    if not isinstance(value, dict):
        return True
    for key in ("type", "_scope_"):
        name = value.get(key)
        if isinstance(name, str):
            scope, dot, part = name.rpartition(".")
            if dot and (scope not in PACKAGES or not part[:1].isupper()):  # mmengine.dump would be called, too
                return False
    return all(map(_names_only_parts, value.values()))

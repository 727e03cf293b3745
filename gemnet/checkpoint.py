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
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from gemnet.errors import GemnetError
from gemnet.private_mmengine import unpickle_with
from gemnet.renaming import STEM, from_efficientnet_pytorch

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
    is itself wrapped, weights of the bare network lack it. EfficientNet-PyTorch's names become timm's.

    Args:
        weights: tensors by key.
        own: the module's keys.

    Returns:
        The weights, with the prefix taken off or put before that lets most keys fit; others are kept as they are.
    """
    if STEM in weights and STEM not in own:
        weights = from_efficientnet_pytorch(weights, own)
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
    unpickle_with(_load_from_anything)
    guard_yaml()


def guard_yaml() -> None:
    """Makes mmengine read YAML as data: its own reader builds whatever object a tag asks for. May be called again."""
    import yaml
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
    try:
        tensors = load_file(name)
        with safe_open(name, framework="pt") as file:
            about = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{name}: can't be read as safetensors ({error}). Is the file complete?") from None
    place = map_location if isinstance(map_location, str | torch.device) else "cpu"
    genome = {"genome": about["genome"]} if "genome" in about else {}
    loaded = {"state_dict": {key: value.to(place) for key, value in tensors.items()}, KEY: dict(about), **genome}
    if "config" in about:  # a detector's
        loaded["meta"] = {"cfg": about["config"]}
    return _without_code(loaded)


def _harmless_types() -> list[Any]:
    """Types that checkpoints of mmengine and timm hold beside tensors; each only stores what it is given."""
    from mmengine.logging.history_buffer import HistoryBuffer

    dtypes = [type(np.dtype(kind)) for kind in (np.bool_, np.int32, np.int64, np.uint32, np.float32, np.float64)]
    numpy: Any = np  # its stubs hide _core
    multiarray = numpy._core.multiarray
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
    """Drops configs that are more than plain data of ours: mmengine runs them as Python, and imports what they name."""
    meta = checkpoint.get("meta")
    if isinstance(meta, dict):
        # Runner.save_checkpoint writes 'cfg'; 'config' is never written, yet executed on resume.
        meta.pop("config", None)
    hub = checkpoint.get("message_hub")
    # MMDetection's DetInferencer looks here first.
    for place in (meta, hub.get("runtime_info") if isinstance(hub, dict) else None):
        if isinstance(place, dict) and "cfg" in place:
            text = place["cfg"]
            values = plain_config(text) if isinstance(text, str) else None
            if values is None or not _names_only_known_code(values):
                place.pop("cfg")
    return checkpoint


CODE = ("gemnet", "mmcv", "mmdet", "mmengine", "nas")
"""Packages that a config inside a checkpoint may name: what it says is built from their parts."""


def plain_config(text: str) -> dict[str, Any] | None:
    """What a dumped config holds, without running it; None where it is more than ``name = value`` with plain data.

    Args:
        text: Python, in which values are literals and calls of ``dict`` with keywords.
    """
    if "{{" in text:  # mmengine replaces such marks in the text, before it is parsed
        return None
    found = {}
    try:
        for statement in ast.parse(text).body:
            if not isinstance(statement, ast.Assign):
                return None
            for target in statement.targets:
                if not isinstance(target, ast.Name) or target.id == "_base_":
                    return None
                found[target.id] = _plain_value(statement.value)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None
    return found


def _plain_value(node: ast.expr | None) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        values = [_plain_value(item) for item in node.elts]
        return values if isinstance(node, ast.List) else tuple(values) if isinstance(node, ast.Tuple) else set(values)
    if isinstance(node, ast.Dict):
        # A key of None is **mapping, which _plain_value refuses.
        return {_plain_value(key): _plain_value(value) for key, value in zip(node.keys, node.values, strict=True)}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_plain_value(node.operand)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        if any(word.arg is None for word in node.keywords):
            raise ValueError("** is no plain data")
        return {str(word.arg): _plain_value(word.value) for word in node.keywords}
    raise ValueError(f"{type(node).__name__} is no plain data")


def _names_only_known_code(value: Any) -> bool:
    """Whether types, scopes and imports anywhere in a config are those of `CODE`.

    mmengine takes a type that it doesn't know, such as ``os.system``, for the path of an object, and calls it.
    """
    if isinstance(value, Mapping):
        imports = value.get("custom_imports")
        if imports is not None:
            named = imports.get("imports") if isinstance(imports, Mapping) else None
            named = [named] if isinstance(named, str) else named or []
            if not all(isinstance(name, str) and name.split(".")[0] in CODE for name in named):
                return False
        for key in ("default_scope", "_scope_"):
            if value.get(key) is not None and value[key] not in CODE:
                return False
        kind = value.get("type")
        if isinstance(kind, str) and "." in kind:
            scope, _, name = kind.partition(".")
            # A registered class: not a function, nor anything further down in a package.
            if scope not in CODE or not name.isidentifier() or not name[0].isupper():
                return False
        return all(_names_only_known_code(item) for item in value.values())
    if isinstance(value, list | tuple | set):
        return all(_names_only_known_code(item) for item in value)
    return True

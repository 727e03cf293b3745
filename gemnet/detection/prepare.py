"""What the tools do to a detector's config before the Runner starts."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch

from gemnet.detection.channels import DetectorConfigError, fill_channels


def is_detector(cfg: Any) -> bool:
    """Whether a config is one of MMDetection's."""
    return cfg.get("default_scope") == "mmdet"


def prepare_detector(cfg: Any, training: bool, launcher: str = "none") -> None:
    """Completes a detector's config, in place, after command-line options were merged into it.

    Fills in the neck's channels (`fill_channels`), adds the guard against checkpoints of another network, and on a
    machine without CUDA makes MMDetection's distributed training work over gloo.

    Args:
        cfg: an mmengine ``Config``.
        training: False for testing.
        launcher: ``none``, ``pytorch`` or ``slurm``.

    Raises:
        DetectorConfigError: MMDetection is not installed, or the neck doesn't fit the backbone.
        GemnetError: no such architecture, genome or level.
    """
    if importlib.util.find_spec("mmdet") is None or importlib.util.find_spec("mmcv") is None:
        raise DetectorConfigError("MMDetection is not installed. Install it with: pip install 'gemnet[detection]'")
    fill_channels(cfg.model)
    hooks = [hook for hook in cfg.get("custom_hooks") or [] if hook.get("type") != "gemnet.CheckpointGuardHook"]
    cfg.custom_hooks = [
        *hooks,
        {"type": "gemnet.CheckpointGuardHook", "strict": not training or bool(cfg.get("resume"))},
    ]
    if launcher != "none" and not torch.cuda.is_available():
        # mmengine would set a CUDA device and hand its number to DistributedDataParallel.
        cfg.model_wrapper_cfg = {"type": "MMDistributedDataParallel", "device_ids": None, "broadcast_buffers": False}
        start_gloo(launcher)


def start_gloo(launcher: str) -> None:
    """Joins the processes of a launcher over gloo, unless that has been done.

    Raises:
        DetectorConfigError: the launcher's environment variables are not set.
    """
    if torch.distributed.is_initialized():
        return
    if launcher == "slurm":
        for name, source in (("RANK", "SLURM_PROCID"), ("WORLD_SIZE", "SLURM_NTASKS"), ("LOCAL_RANK", "SLURM_LOCALID")):
            if source in os.environ:
                os.environ.setdefault(name, os.environ[source])
    missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise DetectorConfigError(
            f"launcher {launcher!r} needs the environment variables {', '.join(missing)}. Start with: torchrun "
            "--nproc-per-node 2 tools/train.py CONFIG --launcher pytorch"
        )
    os.environ.setdefault("LOCAL_RANK", os.environ["RANK"])
    torch.distributed.init_process_group("gloo")

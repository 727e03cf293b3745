"""What a training that is resumed takes from its checkpoint, whatever its config says now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gemnet.private_mmengine import plain_dict
from gemnet.training.runner_config import RunnerError

SETTLED = (
    "optim_wrapper.optimizer",
    "optim_wrapper.paramwise_cfg",
    "param_scheduler",
    "auto_scale_lr",
    "train_dataloader.batch_size",
)
"""Parts of a config that a checkpoint's state of optimiser and schedulers was made from, and that it replaces."""


SCHEDULE = "gemnet_schedule"
"""Where a checkpoint's ``meta`` has them."""


def refuse_other_schedule(config: Any, trained: Mapping[str, Any], source: str) -> None:
    """Refuses settings of optimiser and schedule that differ from the checkpoint's: they would change nothing.

    Args:
        config: of the training that is to go on.
        trained: the checkpoint; where it doesn't say its settings, nothing is compared.
        source: its file, for the message.

    Raises:
        RunnerError: some differ; they are named.
    """
    then, now = (trained.get("meta") or {}).get(SCHEDULE), schedule_of(config)
    if not isinstance(then, Mapping):
        return
    differing = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    if differing:
        named = "; ".join(f"{key} was {then.get(key)!r}, is {now.get(key)!r}" for key in differing)
        raise RunnerError(
            f"--resume goes on with the optimiser and the schedule of {source}, but the config has others: {named}. "
            f"Leave these changes out to go on; to begin a new schedule with its weights, leave --resume out and give "
            f"--cfg-options load_from={source} and another --work-dir."
        )


def schedule_of(config: Any) -> dict[str, Any]:
    """The values below `SETTLED` of a config, by their paths."""
    found: dict[str, Any] = {}
    for path in SETTLED:
        part: Any = plain_dict(config)
        for name in path.split("."):
            part = part.get(name) if isinstance(part, Mapping) else None
        found |= _leaves(part, path)
    return found


def _leaves(part: Any, path: str) -> dict[str, Any]:
    if isinstance(part, Mapping):
        items = [(str(key), item) for key, item in part.items()]
    elif isinstance(part, list | tuple):
        items = [(str(number), item) for number, item in enumerate(part)]
    else:
        return {path: part if part is None or isinstance(part, str | int | float) else repr(part)}
    return {place: leaf for key, item in items for place, leaf in _leaves(item, f"{path}.{key}").items()}

"""A hook that refuses checkpoints of another network, which mmengine loads with a warning."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from gemnet.checkpoint import CheckpointError, describe_mismatch, state_dict_of
from gemnet.registry import HOOKS


@HOOKS.register_module()
class CheckpointGuardHook(Hook):
    """Compares a checkpoint's keys and shapes with the model's before they are loaded.

    Args:
        strict: whether all must agree, as for testing and resuming; else only the backbone's, so that a detector may
            be trained further on other classes.
    """

    priority = "VERY_HIGH"

    def __init__(self, strict: bool = True) -> None:
        self.strict = strict

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Called by mmengine between reading and loading.

        Raises:
            CheckpointError: the weights are those of another network; the message has the keys that differ.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        weights = state_dict_of(checkpoint)
        part, prefix = ("model", "") if self.strict else ("backbone", "backbone.")
        module = model if self.strict else getattr(model, "backbone", None)
        if module is None:
            return
        chosen = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        problem = describe_mismatch(module, chosen)
        if problem:
            raise CheckpointError(f"The checkpoint does not fit this config's {part}: {problem}.")

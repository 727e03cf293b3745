"""A process of `test_distributed.py`: trains through the tools' runner, keeps the loss of each step and the weights.

Usage: distributed_worker.py CONFIG WORK_DIR BATCH_SIZE LAUNCHER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook

from gemnet.training.runner import build_for_training, make_runner
from gemnet.training.runner_config import load_runner_config


class Recorder(Hook):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        assert outputs is not None
        self.losses.append(float(outputs["loss"]))


def main(file: str, work_dir: str, batch_size: str, launcher: str) -> None:
    torch.set_num_threads(1)
    config = load_runner_config(Path(file), {"train_dataloader.batch_size": int(batch_size)})
    runner = make_runner(config, work_dir, launcher)
    recorder = Recorder()
    runner.register_hook(recorder)
    build_for_training(runner)
    runner.train()
    model = getattr(runner.model, "module", runner.model)
    torch.save({"losses": recorder.losses, "weights": model.state_dict()}, Path(work_dir) / f"rank{runner.rank}.pth")


if __name__ == "__main__":
    main(*sys.argv[1:])

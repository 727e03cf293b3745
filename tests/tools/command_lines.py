"""Commands with the work cut out, and values that somebody might give them, for the fuzz test of command lines."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMANDS = ("search", "export", "train", "test", "fidelity", "benchmark", "zoo", "compare")

TEXTS = [
    "",
    " ",
    ".",
    "..",
    "/",
    "/dev/null",
    "x" * 300,
    "d/" * 2200 + "x",
    "~nouser/x",
    "nul\0byte",
    "absent",
    "absent/deeper/x",
    "folder",
    "file.txt",
    "file.txt/x",
    "empty.db",
    "noise.bin",
    "fifo",
    "\x1b[31mred",
    "two\nlines",
    "grün",
    "lone\udcff",
    "%s",
    "{}",
    "[1, 2",
    "None",
    "a=b",
    "http://127.0.0.1:1/x",
    "postgresql://me:secret@127.0.0.1:1/base",
    "sqlite:///absent/deeper/x.db",
]
NUMBERS = ["-1", "0", "1", "2", "1.5", "nan", "inf", "-inf", "1e400", "9" * 25, "9" * 5000, "1_0", "x", "", "１"]
KEYS = [
    "time_limit",
    "fidelity.epochs",
    "fidelity.subset",
    "fidelity.resolution",
    "strategy.type",
    "strategy.beta",
    "strategy.cost",
    "strategy.initial",
    "strategy.pool",
    "strategy.encoder.steps",
    "strategy.encoder",
    "score.weight",
    "limits.max_macs",
    "limits.max_params",
    "limits.max_latency",
    "space.max_nodes",
    "space.vocabulary",
    "data.source",
    "data.resolution",
    "data.dev_fraction",
    "recipe.lr",
    "recipe.batch_size",
    "search.batch",
    "search.seed",
    "search.start_from",
    "workers",
    "workers.count",
    "workers.threads",
    "final",
    "final.epochs",
    "final.time_limit",
    "comparison.blocks",
    "confirm.top",
    "ledger",
    "evaluator",
    "evaluator.accuracy",
    "space",
    "custom_hooks",
    "model",
    "model.arch",
    "model.options.drop_rate",
    "model.num_classes",
    "train_cfg.max_epochs",
    "train_dataloader.batch_size",
    "optim_wrapper.optimizer.lr",
    "seeds",
    "epochs",
    "networks",
]


class WorkBegan(Exception):
    """Everything that was given has been accepted."""


def _begin(*_: Any, **__: Any) -> Any:
    raise WorkBegan


FRONTIERS = [
    "nas.search.main.open_work_folder",
    "nas.studies.ranking.build_executor",
    "nas.studies.comparison.run.run_comparison",
    "nas.studies.comparison.run.estimate",
    "nas.studies.detectors.run.run_detector_comparison",
    "nas.studies.tabular.runs.finish",
    "nas.studies.estimates.study_estimates",
    "mmengine.runner.Runner.train",
    "mmengine.runner.Runner.val",
    "mmengine.runner.Runner.test",
    "gemnet.zoo.measure.measure_accuracy",
    "gemnet.zoo.measure.measure_speeds",
    "gemnet.zoo.folder.push_folder",
]


def cut_out_the_work(monkeypatch: Any) -> None:
    """Makes every command end in `WorkBegan` where its hours would begin."""
    for name in FRONTIERS:
        monkeypatch.setattr(name, _begin)
    # Modules that took them by name.
    for module in list(sys.modules.values()):
        for name in FRONTIERS:
            owner, _, short = name.rpartition(".")
            ours = getattr(module, "__name__", "").startswith(("nas.", "gemnet."))
            if ours and getattr(vars(module).get(short), "__module__", None) == owner:
                monkeypatch.setattr(module, short, _begin)


@dataclass(frozen=True)
class Option:
    """What an option of a command takes."""

    flag: str
    kind: str
    several: bool


def parsers(command: str) -> list[tuple[list[str], argparse.ArgumentParser]]:
    """A command's parsers, each with the words that lead to it."""
    module = importlib.import_module(f"nas.commands.{command}")
    parser = module._parser("program")
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return [([name], sub) for name, sub in action.choices.items()]
    return [([], parser)]


def options_of(parser: argparse.ArgumentParser) -> list[Option]:
    """The options and places of a parser."""
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        flag = action.option_strings[0] if action.option_strings else ""
        if action.nargs == 0:
            kind = "none"
        elif action.choices is not None:
            kind = "choice:" + ",".join(map(str, action.choices))
        elif flag == "--cfg-options":
            kind = "config"
        else:
            kind = "number" if action.type is not None and action.type is not Path else "text"
        found.append(Option(flag, kind, action.nargs in ("+", "*")))
    return found


def prepare(folder: Path) -> None:
    """What the values name."""
    (folder / "folder").mkdir()
    (folder / "file.txt").write_text("text")
    (folder / "empty.db").touch()
    (folder / "noise.bin").write_bytes(os.urandom(300))
    os.mkfifo(folder / "fifo")


def listing(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder with its content."""
    items = sorted(folder.rglob("*"))
    return {str(item.relative_to(folder)): item.read_bytes() if item.is_file() else None for item in items}


def run(command: str, arguments: Sequence[str]) -> tuple[int | None, str, str]:
    """Exit code (None where work began), what was printed on standard error, and a traceback where there was one."""
    main = importlib.import_module(f"nas.commands.{command}").main
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            code = main(list(arguments))
        except WorkBegan:
            code = None
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException:
            return 1, error.getvalue(), traceback.format_exc()
    return code, error.getvalue(), ""


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Works in a folder for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)

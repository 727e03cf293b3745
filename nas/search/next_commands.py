"""What can be typed once a search has ended, for its last words and for its page."""

from __future__ import annotations

import shlex

from gemnet.data.datasets import BUILT_IN
from gemnet.data.image_set import TIMM_PREFIXES
from nas.search.config import SearchConfig
from nas.search.report.result import SearchResult


def program(tool: str, installed: bool) -> str:
    """How a tool is called: as a console command of the wheel, or as a file of the repository."""
    return f"gemnet-{tool}" if installed else f"python tools/{tool}.py"


def next_commands(config: SearchConfig, result: SearchResult, installed: bool) -> list[tuple[str, str]]:
    """(what for, command) pairs; none where the search found no network, as in a table.

    Args:
        config: the search.
        result: what it came to.
        installed: whether the tools are console commands.
    """
    if result.genome is None:
        return []
    folder = shlex.quote(str(result.folder))
    options = [f"genome={str(result.folder / 'best.json')!r}"]
    if result.in_chans != 3:
        options.append(f"in_chans={result.in_chans}")
    if result.rows:
        options.append(f"checkpoint_path={str(result.folder / 'best.safetensors')!r}")
    build = f"import gemnet, timm; print(timm.create_model('gemnet', {', '.join(options)}))"
    search = program("search", installed)
    source = str(config.data.get("source", ""))
    if source in BUILT_IN or source.startswith(TIMM_PREFIXES):
        last = [("search on your own images:", f"{search} configs/search/photos.py --data path/to/images")]
    elif result.rows:
        last = [("say what is in other images:", f"{program('predict', installed)} {folder} path/to/images")]
    elif config.evaluator.type == "detector":
        backbone = f"model.backbone.arch=None model.backbone.genome={shlex.quote(str(result.folder / 'best.json'))}"
        train = f"{program('train', installed)} {shlex.quote(str(config.evaluator.options['config']))}"
        last = [("train the detector on it:", f"{train} --cfg-options {backbone}")]
    else:
        last = []
    return [
        ("build it with timm:", f"python -c {_quoted(build)}"),
        ("give it a name of its own in timm and MMDetection:", f"{program('export', installed)} {folder} --name mynet"),
        (
            "search longer from here:",
            f"{search} --work-dir {folder} --resume --evaluations {2 * config.search.evaluations}",
        ),
        *last,
    ]


def _quoted(code: str) -> str:
    """Python code as one word of a shell: in double quotes where nothing in it means something to the shell there."""
    return shlex.quote(code) if any(sign in code for sign in '"$`\\!') else f'"{code}"'

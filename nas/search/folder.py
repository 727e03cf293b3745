"""The work folder of a search: what lies where, whose it is, and that only one process works in it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from gemnet.errors import GemnetError
from gemnet.files import write_json
from gemnet.folder_lock import HOLDER, LOCK, FolderInUseError, FolderLock, Holder
from gemnet.strict import first_difference
from gemnet.strict_json import parse_json
from nas.evaluation.ledger import LEDGER
from nas.search.config import SearchConfig, read_config

FORMAT = 1
REPORT = "report.html"
"""The page of a search, for people."""
LATENCY = "latency.json"
"""The file of the prices by which latencies are estimated."""
ESTIMATES = "estimates.json"
"""The file of the latencies that candidates were estimated to have."""
IDENTITY = "search.json"
"""The file that says what search a work folder holds."""


class WorkFolderError(GemnetError):
    """A work folder that holds something else, is in use, or can't be written."""


@dataclass(frozen=True)
class WorkFolder:
    """An open work folder.

    Args:
        path: the folder.
        search_id: names the search in the ledger; drawn when the folder was made.
        resumed: whether the search was begun before.
        died: who drove it before and died, or None.
    """

    path: Path
    search_id: str
    resumed: bool
    died: Holder | None
    _lock: FolderLock

    @property
    def ledger(self) -> Path:
        """SQLite file of the search's own ledger."""
        return self.path / LEDGER

    @property
    def recorded(self) -> Path:
        """How much the ledger has held, so that a lost one is noticed."""
        return self.path / "recorded.json"

    @property
    def log(self) -> Path:
        """Log of the search."""
        return self.path / "search.log"

    @property
    def worker_log(self) -> Path:
        """What worker processes print."""
        return self.path / "workers.log"

    @property
    def genome(self) -> Path:
        """Genome of the found network."""
        return self.path / "best.json"

    @property
    def weights(self) -> Path:
        """Weights of the found network after its longer training."""
        return self.path / "best.safetensors"

    def state_of(self, network: str, epochs: int, seed: int) -> Path:
        """Where a longer training that isn't finished is kept after each epoch.

        Args:
            network: fingerprint of the network.
            epochs: of the training.
            seed: of the training.
        """
        return self.path / f"unfinished_{network[:16]}_{epochs}_{seed}.pth"

    @property
    def cell_picture(self) -> Path:
        """What the found cell computes, as a graph."""
        return self.path / "cell.png"

    @property
    def sampled_cell_picture(self) -> Path:
        """The found cell as it was sampled, where that is another graph."""
        return self.path / "cell_sampled.png"

    @property
    def search_picture(self) -> Path:
        """How the search went."""
        return self.path / "search.png"

    @property
    def report(self) -> Path:
        """The page of the search, for people."""
        return self.path / REPORT

    @property
    def latency(self) -> Path:
        """Prices by which latencies are estimated."""
        return self.path / LATENCY

    @property
    def estimates(self) -> Path:
        """Latencies that candidates were estimated to have."""
        return self.path / ESTIMATES

    @property
    def outside(self) -> Path:
        """Digests of what the config names but does not hold."""
        return self.path / "outside.json"

    @property
    def finalists(self) -> Path:
        """Latencies of the best candidates as they were measured."""
        return self.path / "finalists.json"

    @property
    def test_log(self) -> Path:
        """When and at which commit the official test images were opened."""
        return self.path / "test_images.log"

    @property
    def summary(self) -> Path:
        """What the printed table says, as JSON."""
        return self.path / "summary.json"

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


def open_work_folder(path: Path, config: SearchConfig, evaluator: str, resume: bool) -> WorkFolder:
    """Makes a work folder for a search, or opens the one it has.

    Args:
        path: the folder.
        config: the search.
        evaluator: fingerprint of its evaluator.
        resume: whether to go on with what the folder holds; in an empty or missing one a new search begins.

    Raises:
        WorkFolderError: the folder is not empty and ``resume`` is False, holds another search or something else, or
            another process is searching in it.
    """
    check_work_folder(path, config, evaluator, resume)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(path)
        died = lock.acquire()
    except FolderInUseError as error:
        raise WorkFolderError(
            f"Another process is searching in {path}: {error}. Wait for it, or choose another --work-dir."
        ) from None
    except OSError as error:
        raise WorkFolderError(f"The work folder {path} can't be written ({error.strerror}). Choose another.") from None
    try:
        found = path / IDENTITY
        if found.is_file():
            _check_same_search(path, config, evaluator)
            data = read_identity(path)
            there, here = data["config"].get("ledger"), config.to_dict()["ledger"]
            if there != here:  # written when URLs were kept with their passwords
                write_json(found, {**data, "config": {**data["config"], "ledger": here}})
            return WorkFolder(path, data["search_id"], True, died, lock)
        search_id = uuid.uuid4().hex
        write_json(
            found, {"format": FORMAT, "search_id": search_id, "evaluator": evaluator, "config": config.to_dict()}
        )
        return WorkFolder(path, search_id, False, died, lock)
    except BaseException:
        lock.release()
        raise


def check_work_folder(path: Path, config: SearchConfig, evaluator: str, resume: bool) -> bool:
    """Whether a search was begun in a folder; writes nothing.

    Raises:
        WorkFolderError: as `open_work_folder`, but for another process.
    """
    if not resume and _contents(path):
        raise WorkFolderError(
            f"The work folder {path} is not empty. Add --resume (resume=True in Python) to go on with the search in "
            "it, or choose another --work-dir."
        )
    if _contents(path) and not (path / IDENTITY).is_file():
        raise WorkFolderError(f"The work folder {path} is not empty and holds no search. Choose another --work-dir.")
    begun = (path / IDENTITY).is_file()
    if begun:
        _check_same_search(path, config, evaluator)
    return begun


def read_identity(path: Path) -> dict[str, Any]:
    """What search a folder holds: ``format``, ``search_id``, ``evaluator`` (fingerprint) and ``config``.

    Raises:
        WorkFolderError: none, one written by another version, or one that was changed by hand.
    """
    file = path / IDENTITY
    try:
        data = parse_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorkFolderError(f"There is no search in {path} ({IDENTITY} is missing). Check the path.") from None
    except (OSError, ValueError) as error:
        raise WorkFolderError(f"{file} can't be read ({error}).") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        shown = data.get("format") if isinstance(data, dict) else None
        raise WorkFolderError(
            f"{file} has format {shown!r}; this version reads format {FORMAT}. Use the version that wrote it."
        )
    for key, kind, what in (("search_id", str, "a text"), ("evaluator", str, "a text"), ("config", dict, "a dict")):
        if not isinstance(data.get(key), kind) or not data[key]:
            raise WorkFolderError(
                f"{file} was changed by hand or damaged: its {key} is {what}, got {data.get(key)!r}. Put the file back "
                "as it was, or begin anew in another --work-dir."
            )
    return data


def _contents(path: Path) -> list[str]:
    """Names in a folder. Locks and drafts alone are what a search killed in its first moment leaves."""
    if path.exists() and not path.is_dir():
        raise WorkFolderError(f"The work folder {path} is a file. Choose another --work-dir.")
    if not path.is_dir():
        return []
    names = [item.name for item in path.iterdir()]
    return [name for name in names if name not in (LOCK, HOLDER) and not name.endswith(".draft")]


def _check_same_search(path: Path, config: SearchConfig, evaluator: str) -> None:
    data = read_identity(path)
    try:
        there = read_config(data["config"]).identity()
    except GemnetError as error:
        raise WorkFolderError(
            f"{path / IDENTITY} was changed by hand, or is of another version: {error} Put the file back as it was, "
            "or begin anew in another --work-dir."
        ) from None
    difference = first_difference(there, config.identity())
    if difference is not None:
        key, old, new = difference
        raise WorkFolderError(
            f"The work folder {path} holds another search: {key} is {old!r} there and {new!r} here. Resume with the "
            "settings it has, or choose another --work-dir."
        )
    if data["evaluator"] != evaluator:
        raise WorkFolderError(
            f"The work folder {path} holds another search: its settings are the same, but the data, the recipe or the "
            f"code that evaluates has changed since (evaluator {data['evaluator']} there, {evaluator} here). "
            "Results would not be comparable; choose another --work-dir."
        )

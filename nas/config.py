"""Search configs: mmengine config files, read strictly.

A config is a Python file with one assignment a part, ``_base_`` for what it builds on. Every key is checked: one that
does not exist is an error that names the nearest one that does, so that a typing error never silently changes a search.
"""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from gemnet.errors import GemnetError, nearest
from nas.evaluation import Fidelity
from nas.score import Budget, EfficiencyScore

T = TypeVar("T")


class ConfigError(GemnetError):
    """A config that can't be read, or a key or value in it that makes no sense."""


@dataclass(frozen=True)
class Component:
    """A part chosen by name: ``dict(type='nasgem', pool=20000)``.

    Args:
        type: the name.
        options: everything else, checked where the part is built.
    """

    type: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchOptions:
    """The search itself.

    Args:
        evaluations: candidates to evaluate. May be raised when a search is resumed.
        batch: candidates the strategy proposes at a time.
        ahead: a batch is proposed when all but the last ``ahead`` proposals before it are evaluated. 0 lets every batch
            know everything before it, and workers wait at its end; about half a batch keeps them busy. It is a
            number and not "whatever is done", so that a search does not depend on who finishes first.
        seed: seed of the strategy.
        start_from: work folder of an earlier search, or a table of its evaluations (.csv): this one begins with those
            instead of with random candidates. Those of the same evaluator and fidelity within the limits are taken;
            they count.
        first: known candidates to evaluate before any other, each as ``dict(cell=dict(ops=[...], edges=[...]),
            macro=dict(...))``. They count, and random ones fill up their last batch.
    """

    evaluations: int = 60
    batch: int = 8
    ahead: int = 4
    seed: int = 0
    start_from: str | None = None
    first: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.first and self.start_from is not None:
            raise ConfigError(
                "search.first and search.start_from both say how the search begins. Leave one of them out."
            )
        _at_least("search", self, evaluations=1, batch=1, ahead=0, seed=0)


@dataclass(frozen=True)
class LatencyOptions:
    """What ``limits.max_latency`` is a latency of. Without that limit nothing is measured.

    Args:
        device: where networks run: ``cpu``, ``cuda``, ``cuda:1``.
        threads: CPU threads.
        batch_size: images at a time; the latency is the batch's, divided by it.
        networks: how many are measured before the search begins.
    """

    device: str = "cpu"
    threads: int = 1
    batch_size: int = 1
    networks: int = 64

    def __post_init__(self) -> None:
        _at_least("latency", self, threads=1, batch_size=1, networks=32)


@dataclass(frozen=True)
class WorkerOptions:
    """Who evaluates.

    Args:
        count: worker processes; None for one each GPU, or without GPUs one each ``threads`` CPU cores; 0 evaluates in
            the driving process. Changes no results, and may change when a search is resumed.
        threads: compute threads of a worker. Sums of floats depend on it in their last digits, so results do too.
    """

    count: int | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        _at_least("workers", self, threads=1, **({} if self.count is None else {"count": 0}))


@dataclass(frozen=True)
class ConfirmOptions:
    """Re-evaluation before one is chosen: the best of many noisy evaluations is flattered.

    Args:
        top: how many of the best are evaluated again; 0 trusts the search's own evaluations.
        seeds: fresh training seeds for each; their mean decides.
        epochs: epochs of these evaluations; None for the search's own.
    """

    top: int = 4
    seeds: int = 2
    epochs: int | None = None

    def __post_init__(self) -> None:
        _at_least("confirm", self, top=0, seeds=1, **({} if self.epochs is None else {"epochs": 1}))


@dataclass(frozen=True)
class FinalOptions:
    """The longer training of the found network.

    Args:
        epochs: its epochs.
        time_limit: seconds after which it is given up; None for none.
    """

    epochs: int
    time_limit: float | None = None

    def __post_init__(self) -> None:
        _at_least("final", self, epochs=1)


@dataclass(frozen=True)
class ComparisonOptions:
    """What the found network is compared with, each trained as it was and fitted to no more than its MACs.

    Args:
        random_cells: random cells of the space.
        blocks: hand-made blocks by name.
        seeds: trainings of each hand-made block and of the found network.
        epochs: epochs of all of them; None for those of ``final``. Where it is another number, the found network is
            trained that long for the comparison, and as long as ``final`` says besides.
        test: whether all of them are measured on the official test images too. Each opening of these is logged in the
            work folder.
    """

    random_cells: int = 4
    blocks: tuple[str, ...] = ("mobilenetv2", "resnet")
    seeds: int = 1
    epochs: int | None = None
    test: bool = False

    def __post_init__(self) -> None:
        _at_least("comparison", self, random_cells=0, seeds=1, **({} if self.epochs is None else {"epochs": 1}))


@dataclass(frozen=True)
class SearchConfig:
    """Everything a search is.

    Args:
        space: where to search.
        strategy: how.
        evaluator: what measures candidates: ``training`` or ``tabular``.
        fidelity: how thoroughly.
        data: the images, as `nas.images.datasets.DataSpec` (``training`` only).
        recipe: how candidates are trained (``training`` only).
        score: what is maximised: accuracy, weighed against MACs.
        limits: hard limits on MACs, parameters and latency.
        latency: what the limit on latency means; None for its defaults.
        search: budget, batches and seed.
        time_limit: seconds after which an evaluation is given up; None for none.
        workers: who evaluates.
        confirm: re-evaluation of the best.
        final: longer training of the chosen one; None for none.
        comparison: what it is compared with; None for nothing.
        ledger: SQLAlchemy URL of a shared ledger; None for one of its own in the work folder.
    """

    space: Component
    strategy: Component
    evaluator: Component
    fidelity: Fidelity
    data: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    score: EfficiencyScore = field(default_factory=EfficiencyScore)
    limits: Budget = field(default_factory=Budget)
    latency: LatencyOptions | None = None
    search: SearchOptions = field(default_factory=SearchOptions)
    time_limit: float | None = None
    workers: WorkerOptions = field(default_factory=WorkerOptions)
    confirm: ConfirmOptions = field(default_factory=ConfirmOptions)
    final: FinalOptions | None = None
    comparison: ComparisonOptions | None = None
    ledger: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; `read_config` of it gives this config again."""
        data: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Component):
                value = {"type": value.type, **value.options}
            elif is_dataclass(value) and not isinstance(value, type):
                value = asdict(value)
            data[item.name] = value
        return json.loads(json.dumps(data))

    def identity(self) -> dict[str, Any]:
        """What must be equal for a search to be resumed: all but who works and how much is evaluated."""
        return identity_of(self.to_dict())


def identity_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """`SearchConfig.identity` of a config given as a dict."""
    kept = {key: dict(value) if isinstance(value, Mapping) else value for key, value in data.items()}
    kept.get("workers", {}).pop("count", None)
    kept.get("search", {}).pop("evaluations", None)
    return kept


def config_folder() -> Path:
    """The folder of the configs that come with the package: the repository's, or the copy inside a wheel."""
    installed = Path(__file__).resolve().parent / "configs"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[1] / "configs"


def find_config(name: str, kind: str = "search") -> Path:
    """The file of a config: a path, or the name (with or without ``.py``) of one that comes with the package.

    Args:
        name: what the user gave.
        kind: folder of the package's configs: ``search`` or ``comparison``.

    Raises:
        ConfigError: neither is there.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = config_folder()
    inside = [shipped / name, shipped / f"{name}.py", shipped / kind / name, shipped / kind / f"{name}.py"]
    if path.parts and path.parts[0] == "configs":
        inside.append(shipped.joinpath(*path.parts[1:]))
    for candidate in inside:
        if candidate.is_file():
            return candidate
    known = sorted(file.stem for file in (shipped / kind).glob("*.py"))
    raise ConfigError(
        f"There is no {kind} config {name!r}: neither a file nor the name of one of ours.{nearest(path.stem, known)}"
    )


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> SearchConfig:
    """Reads a config file.

    Args:
        path: the file.
        options: ``{'search.seed': 1}``: values to put over the file's.

    Raises:
        ConfigError: the file is not a config, or as `read_config`.
    """
    return read_config(read_file(path, options))


def read_file(path: str | Path, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What an mmengine config file says, as plain dicts.

    Args:
        path: the file.
        options: ``{'search.seed': 1}``: values to put over the file's.

    Raises:
        ConfigError: the file is not a config.
    """
    from mmengine.config import Config

    try:
        loaded = Config.fromfile(str(path), lazy_import=False)
        loaded.merge_from_dict(dict(options or {}))
        return loaded.to_dict()
    except Exception as error:  # the file is a program: it may raise anything
        text = " ".join(str(error).split())
        raise ConfigError(f"Cannot read config {path}: {type(error).__name__}: {text}") from error


def read_config(data: Mapping[str, Any]) -> SearchConfig:
    """A config from plain dicts.

    Raises:
        ConfigError: a key that does not exist (the nearest is named), one that is missing, or a value of a wrong type.
    """
    return make(SearchConfig, data, "")


def make(kind: type[T], data: Any, where: str) -> T:
    """A dataclass from a dict, strictly.

    Args:
        kind: the dataclass.
        data: its values by name.
        where: dotted path of ``data`` in the config, for messages.

    Raises:
        ConfigError: as `read_config`.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where or 'A config'} is a dict, got {data!r}.")
    if kind is Component:
        options = {key: value for key, value in data.items() if key != "type"}
        if not isinstance(data.get("type"), str):
            raise ConfigError(f"{where} needs a type: dict(type='...', ...), got {dict(data)!r}.")
        return kind(data["type"], options)  # type: ignore[call-arg]
    prefix = f"{where}." if where else ""
    known = {item.name: item for item in fields(kind) if item.init}  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            raise ConfigError(f"There is no config key {prefix}{key}.{_suggest(str(key), known, prefix)}")
    hints = typing.get_type_hints(kind)
    values = {key: _value(hints[key], value, f"{prefix}{key}") for key, value in data.items()}
    for name, item in known.items():
        if name not in values and item.default is MISSING and item.default_factory is MISSING:
            raise ConfigError(f"The config has no {prefix}{name}, which is needed.")
    try:
        return kind(**values)
    except ConfigError:
        raise
    except GemnetError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from error


def check_options(known: Iterable[str], options: Mapping[str, Any], where: str) -> None:
    """Checks the names of a component's options.

    Args:
        known: the options it has.
        options: those a config gives.
        where: dotted path of the component in the config, for messages.

    Raises:
        ConfigError: an option that does not exist; the nearest is named.
    """
    names = list(known)
    for key in options:
        if key not in names:
            raise ConfigError(f"There is no config key {where}.{key}.{_suggest(key, names, f'{where}.')}")


def keyword_names(build: Callable[..., Any]) -> list[str]:
    """Names a class or function takes by keyword; of a class that hands ``**options`` on, those of its bases too."""
    return list(_keywords(build))


def typed(build: Callable[..., Any], options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A component's options as the hints of what is built from them say; ``2e4`` is 20000 for a whole number.

    Args:
        build: the class or function that takes them by keyword, as in `keyword_names`.
        options: those given; their names are checked by `check_options`.
        where: dotted path of the component, for messages.

    Raises:
        ConfigError: a value of a wrong type.
    """
    hints = _keywords(build)
    return {key: _value(hints[key], value, f"{where}.{key}") for key, value in options.items()}


def _keywords(build: Callable[..., Any]) -> dict[str, Any]:
    """Names and type hints of what `keyword_names` lists."""
    chain: list[Any] = [build]
    if isinstance(build, type):
        chain = [vars(cls)["__init__"] for cls in build.__mro__ if "__init__" in vars(cls)]
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found: dict[str, Any] = {}
    for function in chain:
        parameters = inspect.signature(function).parameters.values()
        hints = typing.get_type_hints(function.func if isinstance(function, partial) else function)
        for each in parameters:
            if each.kind in named and each.name != "self":
                found.setdefault(each.name, hints.get(each.name, Any))
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            break
    return found


def first_difference(left: Any, right: Any, where: str = "") -> tuple[str, Any, Any] | None:
    """The first place where two nested dicts differ: (dotted path, left value, right value), or None."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for key in [*left, *(key for key in right if key not in left)]:
            found = first_difference(left.get(key), right.get(key), f"{where}.{key}" if where else str(key))
            if found is not None:
                return found
        return None
    return None if left == right else (where, left, right)


def _value(hint: Any, value: Any, where: str) -> Any:
    """``value`` as a type hint wants it."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        kinds = typing.get_args(hint)
        if value is None and type(None) in kinds:
            return None
        kinds = tuple(kind for kind in kinds if kind is not type(None))
        # A dict is read as the dataclass it can be; else the kind that it is, or the first it might be turned into.
        records = [kind for kind in kinds if is_dataclass(kind) and isinstance(value, Mapping)]
        return _value([*records, *(kind for kind in kinds if _is(value, kind)), kinds[0]][0], value, where)
    if is_dataclass(hint):
        return value if isinstance(value, hint) else make(hint, value, where)  # type: ignore[arg-type]
    kind = origin or hint
    if kind is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_value(typing.get_args(hint)[0], item, where) for item in items)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not _is(value, kind):
        names = {int: "a whole number", float: "a number", str: "a text", Mapping: "a dict", Sequence: "a list"}
        raise ConfigError(f"{where} is {names.get(kind, kind.__name__)}, got {value!r}.")
    inner = typing.get_args(hint)
    if kind is Mapping:
        return {key: _value(inner[1], each, f"{where}.{key}") for key, each in value.items()} if inner else dict(value)
    if kind is Sequence and inner:
        return [_value(inner[0], each, where) for each in value]
    return value


def _is(value: Any, hint: Any) -> bool:
    kind = typing.get_origin(hint) or hint
    if isinstance(value, bool) or (kind is Sequence and isinstance(value, str)):
        return kind is type(value)
    return isinstance(value, kind)


def _suggest(key: str, known: Sequence[str] | Mapping[str, Any], prefix: str) -> str:
    if not known:
        return " It takes no options."
    text = nearest(key, known)
    return text.replace("Did you mean '", f"Did you mean '{prefix}") if text.startswith(" Did") else text


def _at_least(where: str, options: Any, **least: float) -> None:
    for name, bound in least.items():
        value = getattr(options, name)
        if value < bound:
            raise ConfigError(f"{where}.{name} is at least {bound}, got {value}.")

"""Strict reading: an unknown key or a value of a wrong type is an error that names the nearest right one."""

from __future__ import annotations

import importlib
import inspect
import math
import os
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import partial
from typing import Any, TypeVar

from gemnet.errors import GemnetError, nearest

T = TypeVar("T")


class ConfigError(GemnetError):
    """A config that can't be read, or a key or value in it that makes no sense."""


@dataclass(frozen=True)
class Component:
    """A part chosen by name: ``dict(type='nasgem', pool_size=20000)``.

    Args:
        type: the name.
        options: everything else, checked where the part is built.
    """

    type: str
    options: Mapping[str, Any] = field(default_factory=dict)


def find_class(name: str, known: Mapping[str, str], kind: type[T], where: str) -> type[T]:
    """A class by its name among ours, or one's own by its dotted path: ``mypackage.MySpace``.

    Args:
        name: what a config says. One's own is found on Python's path or in the current folder.
        known: dotted paths of ours, by name.
        kind: what it has to be a subclass of; `object` for anything.
        where: dotted path of the name in the config, for messages.

    Raises:
        ConfigError: there is no such class, or it is another kind of thing.
    """
    path = known.get(name, name)
    module, _, attribute = path.rpartition(".")
    if not module:
        raise ConfigError(f"{where} is {name!r}.{nearest(name, known)} One of your own: 'mypackage.MyClass'.")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"{where} is {name!r}, which can't be imported: {error}.") from error
    except Exception as error:  # whatever somebody's own file does when it is imported
        at = traceback.extract_tb(error.__traceback__)[-1]
        place = "" if isinstance(error, SyntaxError) else f" ({at.filename}:{at.lineno})"
        raise ConfigError(
            f"{where} is {name!r}, which can't be imported: {type(error).__name__}: {error}{place}."
        ) from error
    if not hasattr(imported, attribute):
        meant = nearest(attribute, vars(imported))
        raise ConfigError(
            f"{where} is {name!r}, but {getattr(imported, '__file__', None) or module} has no {attribute!r}.{meant}"
        )
    found = getattr(imported, attribute)
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise ConfigError(f"{where} is {name!r}, which is no class derived from {kind.__module__}.{kind.__qualname__}.")
    return found


def make(kind: type[T], data: Any, where: str) -> T:
    """A dataclass from a dict, strictly.

    Args:
        kind: the dataclass.
        data: its values by name.
        where: dotted path of ``data`` in the config, for messages.

    Raises:
        ConfigError: a key that there is not or that is missing, a value of a wrong type, or one that the class refuses.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where or 'A config'} is a dict, got {data!r}.")
    if kind is Component:
        options = {key: value for key, value in data.items() if key != "type"}
        if not isinstance(data.get("type"), str):
            raise ConfigError(f"{where} needs a type: dict(type='...', ...), got {dict(data)!r}.")
        return typing.cast(T, Component(data["type"], options))
    prefix = f"{where}." if where else ""
    check_keys(kind, data, prefix, "config", ConfigError)
    hints = typing.get_type_hints(kind)
    values = {key: _value(hints[key], value, f"{prefix}{key}") for key, value in data.items()}
    try:
        return kind(**values)
    except ConfigError:
        raise
    except GemnetError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from error


def check_keys(kind: type, data: Mapping[str, Any], prefix: str, noun: str, error: type[GemnetError]) -> None:
    """Checks that a dict has a dataclass's keys.

    Args:
        kind: the dataclass; keys with a default may be missing.
        data: the dict.
        prefix: what stands before a key in messages, such as ``stages[0].``.
        noun: what the dict is part of.
        error: what is raised.
    """
    known = {item.name: item for item in fields(kind) if item.init}
    for key in data:
        if key not in known:
            raise error(f"There is no {noun} key {prefix}{key}.{_suggest(str(key), known, prefix)}")
    for name, item in known.items():
        if name not in data and item.default is MISSING and item.default_factory is MISSING:
            raise error(f"{prefix}{name} is missing from the {noun}.")


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
    if isinstance(hint, type) and is_dataclass(hint):
        return value if isinstance(value, hint) else make(hint, value, where)
    kind = origin or hint
    if kind is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_value(typing.get_args(hint)[0], item, where) for item in items)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value) if abs(value) < 1e300 else math.inf
        if not math.isfinite(number):
            raise ConfigError(f"{where} is a finite number, got {value!r}. Where there may be no limit, None says so.")
        return number
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


MOST = 2**48
"""The largest number that an option can be: arrays can't even be asked for with larger ones."""


def at_least(where: str, options: object, error: type[GemnetError] = ConfigError, /, **least: float) -> None:
    """Raises ``error`` where an attribute lies below the least value it can have, or a count above `MOST`.

    Args:
        where: dotted path of the options in the config, for messages; "" for none.
        options: what has the attributes; one that is None is all right.
        error: what is raised.
        least: the least value of each.
    """
    for name, bound in least.items():
        value = getattr(options, name)
        if value is not None and (not value >= bound or (isinstance(value, int) and value > MOST)):
            limit = f"most {MOST:,}" if value >= bound else f"least {bound}"
            raise error(f"{where}{'.' if where else ''}{name} is at {limit}, got {value}.")

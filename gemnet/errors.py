"""The errors a user of GEMNet can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GemnetError(ValueError):
    """Bad input. The message says what was given, what was expected and how to get there."""


class GraphError(GemnetError):
    """A cell graph that is not one: a cycle, too many nodes, an edge to nowhere."""


class OperationError(GemnetError):
    """An operation name that can't be read, or an operation asked for what it can't do."""


class GenomeError(GemnetError):
    """A genome that no network can be built from. The message names the key."""


MANY = 200
"""Words of which none is listed: the first twenty say nothing about the rest."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The part of a message that names what was probably meant.

    Args:
        word: the unknown word.
        known: the words that exist.

    Returns:
        ``" Did you mean 'x'?"`` when something is close, else the list of what exists (at most 20), or "" where that is
        more than anyone would read, as timm's names are.
    """
    words = sorted(set(known))
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f" Did you mean {close[0]!r}?"
    if len(words) > MANY:
        return ""
    shown = ", ".join(words[:20]) + (", ..." if len(words) > 20 else "")
    return f" Known: {shown}."

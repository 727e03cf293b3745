"""JSON from files that anybody may have written: whatever is wrong with them is one error.

Python's own reader ends in a RecursionError where lists are nested deep, and refuses numbers of thousands of digits
with an advice about the interpreter.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gemnet.errors import GemnetError


class JsonError(GemnetError):
    """A text that is no JSON, or none that can be read; the message says why."""


def parse_json(text: str | bytes) -> Any:
    """What a JSON text holds.

    Args:
        text: the text, or its bytes in UTF-8; a byte-order mark before it is left out.

    Raises:
        JsonError: no JSON, nested too deep, or a number of thousands of digits.
    """
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text.removeprefix("\ufeff")
        return json.loads(decoded)
    except RecursionError:
        raise JsonError("nested too deep to be read") from None
    except UnicodeDecodeError as error:
        raise JsonError(f"not JSON: byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise JsonError(f"not JSON: {error}") from None
    except ValueError:  # Python's own limit
        raise JsonError("a number in it has thousands of digits") from None


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a JSON file holds.

    Raises:
        JsonError: as `parse_json`; the message starts with the path.
        OSError: the file can't be read.
    """
    try:
        return parse_json(Path(path).read_bytes())
    except JsonError as error:
        raise JsonError(f"{path}: {error}.") from None

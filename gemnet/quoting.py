"""Text from files, quoted for the place it goes to: a terminal, Markdown, a picture.

Names of folders, classes and operations are whatever their writer liked. Printed as they are they move the cursor,
forge lines, or become markup.
"""

from __future__ import annotations

import re
from urllib.parse import quote

_MARKUP = re.compile(r"([\\`*\[\]<>#|!~$&]|(?<![^\W_])_|_(?![^\W_]))")
"""An underscore between letters is none."""


def printable(text: object) -> str:
    """Text as one line for a terminal: control characters, line ends and what turns the direction of writing escaped.

    A newline becomes ``\\n``, the character that begins an ANSI sequence ``\\x1b``; letters of all scripts stay.
    """
    shown = (
        letter if letter == " " or letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in str(text)
    )
    return "".join(shown)


def markdown_text(text: object) -> str:
    """Text for a paragraph or a table's cell of a Markdown file: nothing of it is markup or HTML."""
    return _MARKUP.sub(r"\\\1", printable(text))


def picture_text(text: object) -> str:
    """Text for matplotlib: a pair of ``$`` in it is no formula."""
    return printable(text).replace("$", r"\$")


def markdown_code(text: object) -> str:
    """Text as code inside a line of Markdown."""
    return "`" + printable(text).replace("`", "'").replace("|", "\\|") + "`"


def markdown_link(text: object, target: str) -> str:
    """A link of Markdown to a file."""
    return f"[{markdown_text(text)}]({quote(target, safe='/.:#?=&~+-_@,')})"

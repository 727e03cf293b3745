"""Text from files is shown, not obeyed."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from gemnet.quoting import markdown_code, markdown_link, markdown_text, picture_text, printable


@pytest.mark.parametrize(
    "text", ["\x1b[2Jx", "a\nerror: forged", "a\rb", "\u202egpj.exe", "\x9b31m", "\udcff", "\u2028"]
)
def test_a_terminal_is_given_one_line_of_plain_letters(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert "\\" in shown


def test_letters_of_all_scripts_stay() -> None:
    assert printable("Grün 犬 кот") == "Grün 犬 кот"
    assert markdown_text("airplane, cat_dog, 犬") == "airplane, cat_dog, 犬"


def test_markdown_is_given_no_markup() -> None:
    assert markdown_text("<img src=x onerror=y>") == r"\<img src=x onerror=y\>"
    assert markdown_text("a|b\n# c [l](u) `d` _e_ &lt;") == r"a\|b\\n\# c \[l\](u) \`d\` \_e\_ \&lt;"
    assert "`" not in markdown_code("a`b|c")[1:-1]
    assert markdown_link("a](b", "x y)(z.py") == r"[a\](b](x%20y%29%28z.py)"


@pytest.mark.parametrize("text", ["$a$", "$\\frac{$", "a$b$c$d", "\\$x$"])
def test_dollars_in_a_picture_are_dollars(text: str, tmp_path: Path) -> None:
    figure = Figure()
    label = figure.text(0.5, 0.5, picture_text(text))
    shown, is_formula = label._preprocess_math(label.get_text())
    assert (shown, is_formula) == (text, False)
    figure.savefig(tmp_path / "picture.png")

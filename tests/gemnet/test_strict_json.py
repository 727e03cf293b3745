"""Whatever is wrong with a JSON text is one error."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemnet.errors import GenomeError
from gemnet.genome import Genome
from gemnet.strict_json import JsonError, parse_json, read_json


@pytest.mark.parametrize(
    "text",
    ["[" * 200_000, '{"a":' * 200_000, "9" * 5000, "[" + "9" * 5000 + "]", "", "{", b"\xff\xfe", '"\\'],
    ids=["lists", "mappings", "digits", "digits inside", "nothing", "half", "UTF-16", "half a text"],
)
def test_what_can_not_be_read_is_one_error_and_names_its_file(text: str | bytes, tmp_path: Path) -> None:
    with pytest.raises(JsonError) as caught:
        parse_json(text)
    assert "set_int_max_str_digits" not in str(caught.value)
    assert len(str(caught.value)) < 200
    file = tmp_path / "file.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(JsonError, match=r"file\.json: "):
        read_json(file)
    with pytest.raises(GenomeError, match=r"file\.json: "):
        Genome.load(file)


def test_a_byte_order_mark_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "file.json") == {"a": 1}
    assert parse_json("\ufeff[1]") == [1]

"""The part of a message that names what was probably meant."""

from __future__ import annotations

from gemnet.errors import MANY, nearest


def test_what_is_near_is_named_what_is_not_is_listed_and_of_too_many_nothing() -> None:
    assert nearest("resnet8", ["resnet18", "vgg"]) == " Did you mean 'resnet18'?"
    assert nearest("nosuch", ["b", "a"]) == " Known: a, b."
    assert nearest("nosuch", map(str, range(21))).endswith(" 8, ....")
    many = [*map(str, range(MANY)), "resnet18"]
    assert nearest("nosuch", many) == ""
    assert nearest("resnet8", many) == " Did you mean 'resnet18'?"

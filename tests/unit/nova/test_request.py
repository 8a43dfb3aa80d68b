from __future__ import annotations

import pytest

from splitimage_driver import exceptions
from splitimage_driver.model.properties import names
from splitimage_driver.nova.request import Wanted, wanted


def test_metadata_go_before_the_flavor_key_by_key() -> None:
    flavor = {"splitimage:parts": "apache", "splitimage:filesets": "site", "hw:cpu_policy": "x"}
    assert wanted({}, flavor) == Wanted(("apache",), ("site",))
    assert wanted({"splitimage:parts": "php,mysql", "role": "web"}, flavor) == Wanted(
        ("php", "mysql"), ("site",))


def test_an_empty_list_is_a_list() -> None:
    assert wanted({"splitimage:parts": ""}, {"splitimage:parts": "apache"}) == Wanted(())
    assert not wanted({"splitimage:parts": " "}, {}).says_nothing


def test_who_says_nothing_leaves_it_to_the_image() -> None:
    assert wanted({"role": "web"}, {}).says_nothing
    assert wanted({}, {}).parts is None
    assert not wanted({"splitimage:filesets": "site"}, {}).says_nothing


def test_a_key_that_is_mistyped_is_told() -> None:
    with pytest.raises(exceptions.InvalidInput, match="metadata splitimage:part: there is no such"):
        wanted({"splitimage:part": "apache"}, {})


@pytest.mark.parametrize(("text", "found"), [
    ("apache, php", ("apache", "php")), ("apache,,apache,", ("apache",)), ("", ()), (" , ", ())])
def test_a_list_has_each_name_once(text: str, found: tuple[str, ...]) -> None:
    assert names(text) == found

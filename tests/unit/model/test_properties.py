"""What a gold disk's properties ask for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.model.composite import MAX_PARTS

_names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
_packages = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,40}(:[a-z0-9]{1,5})?", fullmatch=True)


def refused(**image: Any) -> str:
    with pytest.raises(exceptions.InvalidInput) as caught:
        properties.software(image)
    return str(caught.value)


def test_it_is_written_as_on_the_command_line() -> None:
    assert properties.software({
        "splitimage_split": "apache=apache2  php=php,libapache2-mod-php\tdb=libstdc++6:amd64",
        "name": "lamp", "splitimage_error": "the last time"}) == {
        "apache": ("apache2",), "php": ("php", "libapache2-mod-php"), "db": ("libstdc++6:amd64",)}


def test_it_goes_on_in_further_properties() -> None:
    image = {"splitimage_split_2": "db=c", "splitimage_split_1": "db=b web=d",
             "splitimage_split": "db=a"}
    assert properties.software(image) == {"db": ("a", "b", "c"), "web": ("d",)}
    assert properties.orders(image) == [
        "splitimage_split", "splitimage_split_1", "splitimage_split_2"]


@given(st.dictionaries(_names, st.lists(_packages, min_size=1, max_size=4), min_size=1,
                       max_size=12))
def test_whatever_fits_is_read_as_it_is_written(wanted: dict[str, list[str]]) -> None:
    pieces = [""]
    for name, packages in wanted.items():
        for package in packages:
            if len(pieces[-1]) + len(name) + len(package) + 2 > properties.MAX_VALUE:
                pieces.append("")
            pieces[-1] += f" {name}={package}"
    image = {f"splitimage_split_{n}" if n else "splitimage_split": piece
             for n, piece in enumerate(pieces)}
    assert properties.software(image) == {n: tuple(p) for n, p in wanted.items()}


@pytest.mark.parametrize("order", [
    "apache", "apache=", "=apache2", "apache=apache2,", "apache=a,,b", "Apache=apache2",
    "../x=a", "a=../x", "a=-rf", "a=b\0", "a=b;c=d", "a=b=c", "a=$(reboot)", "ä=b",
    "x" * 64 + "=a"])
def test_anything_else_is_refused(order: str) -> None:
    assert "is not of the form NAME=PACKAGE,PACKAGE" in refused(splitimage_split=order)


def test_what_is_refused_is_told_in_short() -> None:
    assert len(refused(splitimage_split="\n".join(["x" * 250]))) < 200


@pytest.mark.parametrize(("image", "reason"), [
    ({"splitimage_split": " "}, "names no software"),
    ({"splitimage_split": "a=" + "b" * 255}, "more than 255 bytes"),
    ({"splitimage_split_1": "a=b"}, "goes on in splitimage_split_1, splitimage_split_2"),
    ({"splitimage_split": "a=b", "splitimage_split_2": "c=d"}, "goes on in"),
    ({"splitimage_split": "a=b", "splitimage_split_20": "c=d"}, "at most to splitimage_split_19"),
    ({"splitimage_split": "a=b", "splitimage_splits": "c=d"}, "goes on in"),
])
def test_nothing_of_it_is_passed_over(image: dict[str, str], reason: str) -> None:
    assert reason in refused(**image)


def test_there_are_no_more_pieces_than_parts_fit() -> None:
    words = [f"p{n}=x" for n in range(MAX_PARTS + 1)]
    image = {"splitimage_split": " ".join(words[:30]), "splitimage_split_1": " ".join(words[30:])}
    assert "at most 64 parts" in refused(**image)

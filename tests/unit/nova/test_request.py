from __future__ import annotations

import pytest

from splitimage_driver import exceptions
from splitimage_driver.model.composite import Answer, answered
from splitimage_driver.model.properties import names
from splitimage_driver.nova.request import Wanted, wanted

CONFLICTS, DELIVER = "splitimage:conflicts", "splitimage:deliver"


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


# -- answers to conflicts ---------------------------------------------------------------

def told(metadata: dict[str, str], extra_specs: dict[str, str] | None = None) -> dict[str, str]:
    """Paths to answers."""
    answers = wanted(metadata, extra_specs or {}).answers
    assert list(answers) == sorted(answers, key=lambda a: a.path)
    return {a.path.decode(): a.action for a in answers}


@pytest.mark.parametrize(("text", "found"), [
    ("/etc/motd=keep", {"etc/motd": "keep"}),
    ("/srv/b=replace,/srv/a=concatenate", {"srv/a": "concatenate", "srv/b": "replace"}),
    ("/a=keep\n/b=replace\n", {"a": "keep", "b": "replace"}),
    (" /a = keep ,\n /b=replace, ", {"a": "keep", "b": "replace"}),
    # Paths may hold whatever they like.
    ("/a,b=c=keep,/d e=replace", {"a,b=c": "keep", "d e": "replace"}),
    ("/f\u00fc=keep", {"f\u00fc": "keep"}), ("", {}), (" , ", {}),
])
def test_answers_are_a_list(text: str, found: dict[str, str]) -> None:
    assert told({CONFLICTS: text}) == found


def test_they_are_those_of_the_command_line() -> None:
    assert wanted({CONFLICTS: "/etc/motd=keep"}, {}).answers == (answered("/etc/motd", "keep"),)
    assert answered("etc/motd", "keep") == Answer(b"etc/motd", (), "keep")


def test_a_long_list_goes_on() -> None:
    assert told({CONFLICTS: "/a=keep", f"{CONFLICTS}_1": "/b=keep", f"{CONFLICTS}_2": "/c=replace"}
                ) == {"a": "keep", "b": "keep", "c": "replace"}
    assert told({f"{CONFLICTS}_7": "/a=keep"}) == {"a": "keep"}


def test_answers_of_the_metadata_go_before_all_of_the_flavors() -> None:
    flavor = {CONFLICTS: "/a=keep", f"{CONFLICTS}_1": "/b=keep"}
    assert told({}, flavor) == {"a": "keep", "b": "keep"}
    assert told({CONFLICTS: "/c=replace"}, flavor) == {"c": "replace"}
    assert told({f"{CONFLICTS}_1": "/c=replace"}, flavor) == {"c": "replace"}
    assert told({CONFLICTS: ""}, flavor) == {}


@pytest.mark.parametrize("text", [
    "/etc/motd", "/etc/motd=", "/etc/motd=three-way", "/etc/motd=file", "etc/motd=keep", "/=keep",
    "=keep", "/a=kep,/b=keep", "/a=keep;/b", "keep", "/a=KEEP"])
def test_an_answer_that_is_none_is_one_clear_fault(text: str) -> None:
    for metadata, flavor, where in (({CONFLICTS: text}, {}, "metadata"),
                                    ({}, {f"{CONFLICTS}_3": text}, "flavor")):
        with pytest.raises(exceptions.InvalidInput) as raised:
            wanted(metadata, flavor)
        assert str(raised.value).startswith(f"{where} {CONFLICTS}")
        assert "is not of the form /PATH=keep|replace|concatenate" in str(raised.value)


def test_two_answers_to_one_question() -> None:
    with pytest.raises(exceptions.InvalidInput, match="_1: /a is answered twice"):
        wanted({CONFLICTS: "/a=keep", f"{CONFLICTS}_1": "/a=replace"}, {})


@pytest.mark.parametrize("key", [f"{CONFLICTS}_", f"{CONFLICTS}_x", f"{CONFLICTS}2",
                                 f"{CONFLICTS}_1_1", "splitimage:conflict", "splitimage:Deliver"])
def test_other_keys_are_mistyped(key: str) -> None:
    with pytest.raises(exceptions.InvalidInput, match=r"there is no such key: .*conflicts, "):
        wanted({key: "/a=keep"}, {})


def test_answers_alone_ask_for_nothing() -> None:
    assert wanted({CONFLICTS: "/a=keep", DELIVER: "auto"}, {}).says_nothing


# -- delivery -----------------------------------------------------------------------------

@pytest.mark.parametrize("word", ["inject", "stream", "auto"])
def test_how_parts_are_delivered(word: str) -> None:
    assert wanted({DELIVER: word}, {DELIVER: "inject"}).deliver == word
    assert wanted({}, {DELIVER: word}).deliver == word
    assert wanted({}, {}).deliver == ""


@pytest.mark.parametrize("word", ["", "streams", "Stream", "inject,stream"])
def test_another_delivery_is_one_clear_fault(word: str) -> None:
    with pytest.raises(exceptions.InvalidInput,
                       match=f"metadata {DELIVER}: '{word}' is none of inject, stream, auto"):
        wanted({DELIVER: word}, {})
    with pytest.raises(exceptions.InvalidInput, match=f"flavor {DELIVER}"):
        wanted({}, {DELIVER: word})


def test_what_the_host_tells_there_asks_for_nothing() -> None:
    assert wanted({"splitimage:layout": "laying 25%"}, {}) == Wanted()


def test_what_is_removed_by_force_is_said_clearly() -> None:
    assert wanted({"splitimage:force": " True"}, {}).force
    assert not wanted({"splitimage:force": "false"}, {"splitimage:force": "true"}).force
    with pytest.raises(exceptions.InvalidInput, match="'yes' is neither true nor false"):
        wanted({"splitimage:force": "yes"}, {})

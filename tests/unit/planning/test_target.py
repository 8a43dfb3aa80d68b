"""Laying parts over a base: laws that hold for any parts, and each rule."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from splitimage_driver import exceptions
from splitimage_driver.capture.draft import ALWAYS, Draft
from splitimage_driver.capture.pack import restore_manifest
from splitimage_driver.merge import registry, rows
from splitimage_driver.model.composite import Answer
from splitimage_driver.model.entry import DIRECTORY, FileEntry, parents
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import (
    FILESET,
    RESTORE,
    SOFTWARE,
    Layer,
    PartManifest,
    Row,
    member,
)
from splitimage_driver.model.plan import Source, Target, Work
from splitimage_driver.planning.target import Laid, lay
from tests.unit import making
from tests.unit.making import directory, file, laid, layer, symlink, tree

NAMES = ("p", "q", "r", "s")


def of(target: Target, path: str) -> FileEntry | None:
    return target.manifest.get(path.encode())


def conflicts(target: Target) -> list[tuple[str, tuple[str, ...]]]:
    return [(c.path.decode(), c.parts) for c in target.conflicts]


# -- laws -----------------------------------------------------------------------------


def difference(base: Manifest, gold: Manifest) -> PartManifest:
    """One part with all that makes ``gold`` of ``base``."""
    draft = Draft(["p"], "rest")
    for path in sorted({*base.by_path, *gold.by_path}):
        before, after = base.get(path), gold.get(path)
        if path and not (before is not None and before.same(after)):
            draft.claim("p", ALWAYS, path, after)
    return draft.manifests(base, [gold])["p"]


@settings(max_examples=150)
@given(making.trees(), making.trees())
def test_a_part_that_is_the_difference_gives_the_gold_tree(base: Manifest,
                                                           gold: Manifest) -> None:
    """Hard links to the base's files, links that become directories and all
    other changes of types."""
    target = lay(base, [laid("p", *difference(base, gold).layers)], shared={})
    assert target.conflicts == ()
    found = target.manifest
    assert found.by_path.keys() | {b""} == gold.by_path.keys() | {b""}
    for e in gold:
        if e.path:
            assert e.same(found.by_path[e.path]), e.path


@st.composite
def layers(draw: st.DrawFn, name: str, others: Sequence[str]) -> Layer:
    gold = draw(making.trees())
    return Layer(
        when=tuple(draw(st.sets(st.sampled_from([n for n in others if n != name]), max_size=2))),
        entries=tuple(e for e in gold if e.path),
        deleted=tuple(p for p in draw(st.sets(st.sampled_from((b"a", b"b", b"a/b", b"c/a"))))
                      if p not in gold))


@st.composite
def requests(draw: st.DrawFn) -> list[Laid]:
    names = NAMES[:draw(st.integers(0, 4))]
    return [laid(name, *(draw(layers(name, NAMES)) for _ in range(draw(st.integers(1, 2)))))
            for name in names]


def told(target: Target) -> object:
    return (target.manifest, target.sources, target.generated, target.conflicts)


def outcome(base: Manifest, parts: Sequence[Laid]) -> object:
    try:
        return told(lay(base, parts, shared={}))
    except exceptions.InvalidInput as error:  # links go round, in any order
        return type(error)


@settings(max_examples=40)
@given(making.trees(), requests(), st.randoms())
def test_the_order_of_parts_cannot_show(base: Manifest, parts: list[Laid],
                                        dice: random.Random) -> None:
    first = outcome(base, parts)
    for order in itertools.islice(itertools.permutations(parts), 24):
        assert outcome(base, order) == first
    shuffled = list(base)
    dice.shuffle(shuffled)
    assert outcome(Manifest(shuffled), parts) == first


@settings(max_examples=50)
@given(making.trees(), requests(), st.permutations(NAMES))
def test_the_names_of_parts_cannot_show(base: Manifest, parts: list[Laid],
                                        order: Sequence[str]) -> None:
    """Where nothing is to be asked: names decide no more than order does."""
    again = dict(zip(NAMES, order, strict=True))
    renamed = [laid(again[p.name], *(
        msgspec.structs.replace(one, when=tuple(again[n] for n in one.when))
        for one in p.manifest.layers)) for p in parts]
    try:
        one, two = lay(base, parts, shared={}), lay(base, renamed, shared={})
    except exceptions.InvalidInput:  # links go round
        assume(False)
    assume(not one.conflicts)
    assert two.conflicts == ()
    assert two.manifest == one.manifest


@settings(max_examples=60)
@given(making.trees(), requests())
def test_any_result_is_a_tree_that_can_be_made(base: Manifest, parts: list[Laid]) -> None:
    try:
        target = lay(base, parts, shared={})
    except exceptions.InvalidInput:  # links go round
        assume(False)
    found = target.manifest.by_path
    claimed = {p for part in parts for one in part.manifest.layers
               for p in (*(e.path for e in one.entries), *one.deleted)}
    for path, e in found.items():
        assert all(found[above].type == DIRECTORY for above in parents(path))
        if e.link:
            group = [other for other in found.values() if other.link == e.link]
            assert len(group) > 1 and min(other.path for other in group) == e.link
            assert {(o.sha256, o.mode, o.mtime) for o in group} == {(e.sha256, e.mode, e.mtime)}
    if not target.conflicts:
        # All content comes from a part or is on the base's disk.
        assert Work(base, target.manifest, target.sources, target.generated).unobtainable == ()
    for e in base:
        if e.path not in claimed and not target.conflicts and not any(
                above in claimed for above in parents(e.path)):
            assert e.same(msgspec.structs.replace(found[e.path], link=e.link))


@settings(max_examples=30)
@given(making.trees())
def test_no_parts_change_nothing(base: Manifest) -> None:
    assert lay(base, [], shared={}) == Target(base, {}, {}, ())


@settings(max_examples=30)
@given(making.trees(), requests())
def test_a_claim_under_the_largest_condition_decides(base: Manifest, parts: list[Laid]) -> None:
    assume(parts)
    last = laid("last", Layer(when=tuple(sorted(p.name for p in parts)),
                              entries=(file("z", b"two"),)))
    others = [laid(p.name, *p.manifest.layers, layer(file("z", b"one"))) for p in parts]
    try:
        target = lay(base, [*others, last], shared={})
    except exceptions.InvalidInput:  # links go round
        assume(False)
    assert target.manifest.by_path[b"z"] == file("z", b"two")
    one = last.manifest.layers[0]
    assert target.sources[b"z"] == Source(last.blob, member(one, one.entries[0]))


# -- conditions -------------------------------------------------------------------------

APACHE = laid("apache", layer(file("etc/mods/event"), file("etc/conf", b"a")))
PHP = laid("php", layer(file("usr/php", b"php")),
           layer(file("etc/mods/prefork"), when=["apache"], deleted=["etc/mods/event"]))
BASE = tree(directory("etc"), directory("usr"))


@pytest.mark.parametrize(("parts", "there", "gone"), [
    ([APACHE], ["etc/mods/event"], ["etc/mods/prefork"]),
    ([PHP], ["usr/php"], ["etc/mods", "etc/mods/prefork"]),
    ([APACHE, PHP], ["etc/mods/prefork", "usr/php"], ["etc/mods/event"]),
])
def test_a_part_changes_another_where_that_is_present(parts: list[Laid], there: list[str],
                                                      gone: list[str]) -> None:
    target = lay(BASE, parts, shared={})
    assert all(of(target, path) for path in there)
    assert not any(of(target, path) for path in gone)


def test_incomparable_claims_must_agree() -> None:
    one = laid("a", layer(file("f", b"one", mtime=3)), layer(file("g", b"one"), when=["c"]))
    two = laid("b", layer(file("f", b"one", mtime=9)), layer(file("g", b"two"), when=["c"]))
    target = lay(tree(), [one, two, laid("c")], shared={})
    assert of(target, "f") == file("f", b"one", mtime=9)
    assert conflicts(target) == [("g", ("a", "b"))]


def test_who_repeats_the_base_lets_the_other_speak() -> None:
    base = tree(file("f", b"one"))
    for change in (layer(file("f", b"two")), layer(deleted=["f"])):
        target = lay(base, [laid("a", layer(file("f", b"one", mtime=9))), laid("b", change)],
                     shared={})
        assert target.conflicts == ()
        assert (of(target, "f") or file("f")).size == len(b"two" if change.entries else b"")


def test_one_deletes_what_the_other_changes() -> None:
    target = lay(tree(file("f", b"one")), [laid("a", layer(file("f", b"two"))),
                                           laid("b", layer(deleted=["f"]))], shared={})
    assert conflicts(target) == [("f", ("a", "b"))]
    assert "deletes" in target.conflicts[0].reason


# -- directories ------------------------------------------------------------------------


def test_a_deleted_directory_stays_while_something_is_in_it() -> None:
    base = tree(directory("d/e", 0o700), file("d/e/f"))
    gone = laid("a", layer(deleted=["d", "d/e", "d/e/f"]))
    assert lay(base, [gone], shared={}).manifest == tree()
    target = lay(base, [gone, laid("b", layer(file("d/e/g")))], shared={})
    assert target.manifest == tree(directory("d/e", 0o700), file("d/e/g"))


def test_a_missing_directory_is_as_somebody_brought_it() -> None:
    made = laid("a", layer(directory("d", 0o2775, gid=7)))
    removed = laid("b", layer(when=["a"], deleted=["d"]))
    used = laid("c", layer(file("d/f")))
    assert of(lay(tree(), [made, removed], shared={}), "d") is None
    assert of(lay(tree(), [made, removed, used], shared={}), "d") == directory("d", 0o2775, gid=7)
    assert of(lay(tree(), [used], shared={}), "d") == directory("d")


def test_nothing_lies_below_what_is_no_directory() -> None:
    target = lay(tree(), [laid("a", layer(file("d"))), laid("b", layer(file("d/f")))], shared={})
    assert conflicts(target) == [("d/f", ())]
    assert target.manifest == tree(file("d"))


def test_a_directory_takes_a_links_place() -> None:
    base = tree(symlink("www", "srv/www"), file("srv/www/old"))
    part = Draft(["a"], "rest")
    for e in (directory("www", 0o750), file("www/new", b"one")):
        part.claim("a", ALWAYS, e.path, e)
    found = part.manifests(base, [])["a"]
    other = laid("b", layer(file("www/other", b"two")))
    alone = lay(base, [laid("a", *found.layers)], shared={})
    assert alone.manifest == tree(directory("www", 0o750), file("www/new", b"one"),
                                  file("srv/www/old"))
    # Another part's file still goes where the base's link leads.
    both = lay(base, [laid("a", *found.layers), other], shared={})
    assert of(both, "srv/www/other") and of(both, "www/new")


def test_paths_go_through_the_bases_links() -> None:
    base = tree(symlink("bin", "usr/bin"), directory("usr/bin"), symlink("var/run", "/run"),
                directory("run"))
    part = laid("mine", layer(directory("bin", 0o700), file("bin/x", b"one"),
                              file("var/run/y", b"two"), file("bin/z", b"one", link="bin/x")),
                kind=FILESET)
    target = lay(base, [part], shared={})
    assert of(target, "usr/bin/x") and of(target, "run/y") and of(target, "bin") == symlink(
        "bin", "usr/bin")
    assert of(target, "usr/bin") == directory("usr/bin")
    assert target.sources[b"usr/bin/x"].member == b"bin/x"


# -- hard links ----------------------------------------------------------------------------

LINKED = tree(file("a", b"one", link="a"), file("b", b"one", link="a"))


def test_a_name_added_to_a_file_of_the_base_is_that_file() -> None:
    target = lay(LINKED, [laid("p", layer(file("c", b"one", link="a")))], shared={})
    assert {e.link for e in target.manifest if e.is_file} == {b"a"}
    work = Work(LINKED, target.manifest, target.sources, target.generated)
    assert (work.inject_bytes, [e.path for e in work.missing]) == (0, [b"c"])


def test_a_name_of_a_file_that_is_not_there_is_a_file() -> None:
    part = laid("p", layer(file("c", b"one", link="a")))
    assert lay(tree(), [part], shared={}).manifest == tree(file("c", b"one"))
    other = tree(file("a", b"two"))
    assert lay(other, [part], shared={}).manifest == tree(file("a", b"two"), file("c", b"one"))


def test_parts_that_each_replace_one_name() -> None:
    base = tree(*(file(name, b"one", link="a") for name in "abc"))
    first = laid("p", layer(file("a", b"two"), file("b", b"one", link="b"),
                            file("c", b"one", link="b")))
    second = laid("q", layer(file("b", b"three")))
    target = lay(base, [first, second], shared={})
    assert target.manifest == tree(file("a", b"two"), file("b", b"three"), file("c", b"one"))


def test_a_file_set_that_replaces_one_name_leaves_the_other() -> None:
    mine = laid("mine", layer(file("a", b"two")), kind=FILESET)
    target = lay(LINKED, [mine], shared={})
    assert target.manifest == tree(file("a", b"two"), file("b", b"one"))
    assert Work(LINKED, target.manifest, target.sources, target.generated).unobtainable == ()


# -- text ------------------------------------------------------------------------------------

LINES = b"one\ntwo\nthree\nfour\nfive\nsix\n"


def texts(base: bytes | None, *versions: bytes, answers: Sequence[Answer] = (),
          parts: Sequence[Laid] = ()) -> Target:
    """Parts a, b, ... with these versions of etc/f."""
    contents = {":etc/f": base or b""}
    brought = list(parts)
    for name, content in zip("abcd", versions, strict=False):
        contents[f"{name}:etc/f"] = content
        brought.append(laid(name, layer(file("etc/f", content))))
    found = [directory("etc")] if base is None else [file("etc/f", base)]
    restore = laid("", layer(*found), kind=RESTORE)
    results = [lay(tree(*found), order, shared={}, restore=restore, answers=answers,
                   read=making.text_of(contents)) for order in itertools.permutations(brought)]
    assert all(told(one) == told(results[0]) for one in results)
    return results[0]


def test_text_is_merged_against_the_base() -> None:
    target = texts(LINES, LINES.replace(b"one", b"ONE"), LINES.replace(b"six", b"SIX"),
                   LINES.replace(b"three", b"THREE"))
    assert target.conflicts == ()
    assert target.generated == {b"etc/f": b"ONE\ntwo\nTHREE\nfour\nfive\nSIX\n"}
    assert target.manifest.by_path[b"etc/f"].same(file("etc/f", target.generated[b"etc/f"]))


def test_text_that_each_adds_is_concatenated() -> None:
    target = texts(None, b"from a\n", b"from b\n", b"from c\n")
    assert sorted(target.generated[b"etc/f"].splitlines()) == [b"from a", b"from b", b"from c"]


@pytest.mark.parametrize(("base", "versions"), [
    (LINES, (LINES.replace(b"two", b"x"), LINES.replace(b"two", b"y"))),
    (LINES, (LINES.replace(b"two", b"x"), b"\0binary")),
    (None, (b"text\n", b"\0binary")),
])
def test_what_cannot_be_merged_is_a_question(base: bytes | None,
                                             versions: tuple[bytes, ...]) -> None:
    assert conflicts(texts(base, *versions)) == [("etc/f", ("a", "b"))]


def test_files_that_differ_in_more_than_text_are_not_merged() -> None:
    target = lay(tree(), [laid("a", layer(file("f", b"x\n"))),
                          laid("b", layer(file("f", b"y\n", mode=0o600)))], shared={},
                 read=making.text_of({"a:f": b"x\n", "b:f": b"y\n"}))
    assert conflicts(target) == [("f", ("a", "b"))]


@pytest.mark.parametrize(("answer", "content"), [
    (Answer(b"etc/f", ("a", "b"), "keep"), LINES),
    (Answer(b"etc/f", ("a", "b"), "replace", part="b"), b"new b\n"),
    (Answer(b"etc/f", ("a", "b", "c"), "replace", part="a"), b"new a\n"),
    (Answer(b"etc/f", ("a", "b"), "file", content=b"own\n"), b"own\n"),
    (Answer(b"etc/f", ("a", "b"), "concatenate"), b"new a\nnew b\n"),
])
def test_answers(answer: Answer, content: bytes) -> None:
    target = texts(LINES, b"new a\n", b"new b\n", answers=[answer])
    assert target.conflicts == ()
    assert target.manifest.by_path[b"etc/f"].same(file("etc/f", content))


@pytest.mark.parametrize("answer", [
    Answer(b"etc/f", ("a", "c"), "keep"), Answer(b"etc/g", ("a", "b"), "keep"),
    Answer(b"etc/f", ("a", "b"), "replace", part="c"), Answer(b"etc/f", ("a", "b"), "replace"),
    Answer(b"etc/f", ("a", "b"), "three-way"),
    # What parts disagree about is not the tenant's to decide.
    Answer(b"etc/f", (), "keep"), Answer(b"etc/f", (), "concatenate"),
])
def test_answers_to_another_question(answer: Answer) -> None:
    target = texts(LINES, b"new a\n", b"new b\n", answers=[answer])
    assert conflicts(target) == [("etc/f", ("a", "b"))]


#: a and c change the same line, b another one.
THREE = {"a": LINES.replace(b"two", b"a's"), "b": LINES.replace(b"six", b"b's"),
         "c": LINES.replace(b"two", b"c's")}


def among(chosen: str, *answers: Answer) -> bytes | str:
    """What becomes of etc/f with some of these parts; or who disagrees."""
    contents = {":etc/f": LINES} | {f"{n}:etc/f": THREE[n] for n in chosen}
    target = lay(tree(file("etc/f", LINES)),
                 [laid(n, layer(file("etc/f", THREE[n]))) for n in chosen], shared={},
                 restore=laid("", layer(file("etc/f", LINES)), kind=RESTORE), answers=answers,
                 read=making.text_of(contents))
    if target.conflicts:
        return "".join(target.conflicts[0].parts)
    return target.generated.get(b"etc/f") or next(
        content for content in (LINES, *THREE.values())
        if file("etc/f", content).same(target.manifest.get(b"etc/f")))


def about(action: str, part: str = "", parts: str = "ac", content: bytes = b"") -> Answer:
    return Answer(b"etc/f", tuple(parts), action, part=part, content=content)


@pytest.mark.parametrize(("answer", "together", "without_b"), [
    (about("replace", "a"), THREE["a"].replace(b"six", b"b's"), THREE["a"]),
    (about("replace", "c"), THREE["c"].replace(b"six", b"b's"), THREE["c"]),
    (about("keep"), THREE["b"], LINES),
    (about("file", content=LINES.replace(b"two", b"2")), b"one\n2\nthree\nfour\nfive\nb's\n",
     LINES.replace(b"two", b"2")),
])
def test_an_answer_is_about_its_parts_and_others_change_the_file_as_ever(
        answer: Answer, together: bytes, without_b: bytes) -> None:
    assert [among(chosen, answer) for chosen in ("abc", "ac")] == [together, without_b]
    # Where its parts do not meet there was no question.
    for chosen in ("a", "b", "c", "ab", "bc"):
        assert among(chosen, answer) == among(chosen) != ""
    assert among("abc") == "abc" and among("ac") == "ac"


def test_an_own_file_that_another_part_changes_differently_is_a_question() -> None:
    own = about("file", content=LINES.replace(b"six", b"mine"))
    assert among("ac", own) == own.content
    assert among("abc", own) == "abc"
    # Which has an answer of its own.
    for last, found in ((about("replace", "b", "abc"), THREE["b"]),
                        (about("replace", "a", "abc"), own.content), (about("keep", "", "abc"),
                                                                     LINES)):
        assert among("abc", own, last) == found
        assert among("ac", own, last) == own.content


def test_preferences_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a is not there the others are asked about again."""
    monkeypatch.setitem(THREE, "b", LINES.replace(b"two", b"b's"))
    first, then = about("replace", "a", "abc"), about("replace", "c", "bc")
    assert among("bc", first) == "bc"
    for chosen, found in ("abc", "a"), ("ab", "a"), ("ac", "a"), ("bc", "c"):
        assert among(chosen, first, then) == THREE[found]


def test_three_ways_where_no_two_disagree() -> None:
    assert among("ab") == THREE["a"].replace(b"six", b"b's")
    assert among("abc", about("three-way")) == "abc", "a and c do"


# -- file sets ---------------------------------------------------------------------------------

MINE = laid("mine", layer(directory("etc", 0o700, uid=5), file("etc/conf", b"mine\n"),
                          file("etc/new", b"new")), kind=FILESET)


def test_a_file_set_changes_no_directory_and_asks_about_files() -> None:
    target = lay(BASE, [APACHE, MINE], shared={})
    assert of(target, "etc") == directory("etc")
    assert conflicts(target) == [("etc/conf", ("apache", "mine"))]
    assert of(target, "etc/new")


@pytest.mark.parametrize(("action", "content"), [("keep", b"a"), ("replace", b"mine\n")])
def test_the_tenant_answers(action: str, content: bytes) -> None:
    target = lay(BASE, [APACHE, MINE], shared={}, answers=[Answer(b"etc/conf", (), action)])
    assert target.conflicts == ()
    assert of(target, "etc/conf").same(file("etc/conf", content))  # type: ignore[union-attr]


@pytest.mark.parametrize(("action", "content"), [
    ("keep", LINES.replace(b"one", b"ONE").replace(b"six", b"SIX")), ("replace", b"mine\n")])
def test_what_parts_make_together_is_what_a_tenant_keeps(action: str, content: bytes) -> None:
    """Two of them; the file set is about what becomes of both."""
    contents = {":etc/f": LINES, "a:etc/f": LINES.replace(b"one", b"ONE"),
                "b:etc/f": LINES.replace(b"six", b"SIX"), "mine:etc/f": b"mine\n"}
    parts = [laid(name, layer(file("etc/f", contents[f"{name}:etc/f"])),
                  kind=FILESET if name == "mine" else SOFTWARE) for name in ("a", "b", "mine")]
    restore = laid("", layer(file("etc/f", LINES)), kind=RESTORE)
    for order in itertools.permutations(parts):
        target = lay(tree(file("etc/f", LINES)), order, shared={}, restore=restore,
                     read=making.text_of(contents),
                     answers=[Answer(b"etc/f", (), action)])
        assert target.conflicts == ()
        assert of(target, "etc/f").same(file("etc/f", content))  # type: ignore[union-attr]


def test_an_answer_that_decides_nothing_is_told() -> None:
    target = lay(BASE, [APACHE, MINE], shared={}, answers=[Answer(b"etc/conf", (), "concatenate")])
    assert target.conflicts[0].reason.endswith("; the answer concatenate does not decide it")


def test_a_file_set_may_replace_what_is_the_bases_alone_or_equal() -> None:
    base = tree(file("etc/conf", b"base"))
    assert of(lay(base, [MINE], shared={}), "etc/conf").size == 5  # type: ignore[union-attr]
    same = laid("same", layer(file("etc/conf", b"a", mtime=99)), kind=FILESET)
    assert lay(BASE, [APACHE, same], shared={}).conflicts == ()


# -- rows -------------------------------------------------------------------------------------

PASSWD = b"root:x:0:0::/root:/bin/sh\nmail:x:8:8::/var/mail:/bin/sh\n"
SHARED = {b"etc/passwd": PASSWD}
WITH = tree(file("etc/passwd", PASSWD, mode=0o640))


def row(name: str, number: int | None, rank: tuple[int, int] = (2, 3)) -> Row:
    value = None if number is None else b"%s:x:%d:%d::/:/bin/false" % (name.encode(), number,
                                                                       number)
    return Row(b"etc/passwd", name.encode(), value, rank)


def users(target: Target) -> list[bytes]:
    return [line.partition(b":")[0] for line in target.generated[b"etc/passwd"].splitlines()]


def rowed(name: str, *found: Row, **more: object) -> Laid:
    return laid(name, layer(rows=found, **more))  # type: ignore[arg-type]


def test_rows_of_all_parts_make_the_file() -> None:
    parts = [rowed("a", row("apache", 101)), rowed("b", row("mysql", 102, (2, 4))),
             rowed("c", row("mail", None))]
    for order in itertools.permutations(parts):
        target = lay(WITH, order, shared=SHARED)
        assert target.conflicts == ()
        assert users(target) == [b"root", b"apache", b"mysql"]
        e = target.manifest.by_path[b"etc/passwd"]
        assert (e.mode, e.size) == (0o640, len(target.generated[b"etc/passwd"]))


def test_the_bases_content_is_known_where_nothing_changes_it() -> None:
    """To put it back on a machine that has more."""
    assert lay(WITH, [], shared=SHARED).generated == SHARED


def test_rows_under_a_condition_dominate() -> None:
    parts = [rowed("a", row("app", 101)), rowed("b", row("app", 105), when=["a"])]
    assert b"app:x:105:" in lay(WITH, parts, shared=SHARED).generated[b"etc/passwd"]
    assert users(lay(WITH, parts[1:], shared=SHARED)) == [b"root", b"mail"]


def test_rows_that_disagree_are_a_question() -> None:
    target = lay(WITH, [rowed("a", row("app", 101)), rowed("b", row("app", 105))], shared=SHARED)
    assert conflicts(target) == [("etc/passwd", ("a", "b"))]
    assert "its row app" in target.conflicts[0].reason


def numbers(target: Target) -> list[str]:
    assert target.conflicts == ()
    rows = [line.split(b":") for line in target.generated[b"etc/passwd"].splitlines()]
    return [f"{row[0].decode()} {row[2].decode()}" for row in rows]


def test_an_answer_is_about_the_rows_that_disagree() -> None:
    parts = [rowed("a", row("app", 101), row("one", 201)), rowed("b", row("app", 105)),
             rowed("c", row("two", 202))]
    plain, others = ["root 0", "mail 8"], ["one 201", "two 202"]

    def answered(action: str, **more: Any) -> list[str]:
        answer = Answer(b"etc/passwd", ("a", "b"), action, **more)
        found = {tuple(numbers(lay(WITH, order, shared=SHARED, answers=[answer])))
                 for order in itertools.permutations(parts)}
        assert len(found) == 1
        return sorted(found.pop())

    assert answered("replace", part="a") == sorted(["app 101", *plain, *others])
    assert answered("replace", part="b") == sorted(["app 105", *plain, *others])
    assert answered("keep") == sorted([*plain, *others])
    # Of the parts that disagree only the own file counts; c's rows meet it.
    own = b"root:x:0:0::/:/bin/sh\napp:x:7:7::/:/bin/sh\n"
    assert answered("file", content=own) == ["app 7", "root 0", "two 202"]
    unfit: dict[str, dict[str, Any]] = {"concatenate": {}, "three-way": {},
                                        "file": {"content": b"none"}}
    for action, more in unfit.items():
        target = lay(WITH, parts, shared=SHARED,
                     answers=[Answer(b"etc/passwd", ("a", "b"), action, **more)])
        assert conflicts(target) == [("etc/passwd", ("a", "b"))], action


def test_rows_without_a_merger_are_told() -> None:
    part = rowed("a", Row(b"etc/unheard-of", b"k", b"v"))
    target = lay(WITH, [part], shared=SHARED)
    assert conflicts(target) == [("etc/unheard-of", ("a",))]


def test_a_correction_for_all_parts_has_the_last_word() -> None:
    fixed = file("etc/passwd", b"as it was\n")
    parts = [rowed("a", row("app", 101)), rowed("b", row("web", 102)),
             laid("rest", layer(fixed, when=["a", "b"]))]
    target = lay(WITH, parts, shared=SHARED)
    assert (of(target, "etc/passwd"), target.conflicts) == (fixed, ())
    assert target.sources[b"etc/passwd"].blob == "blob of rest"
    # A part from elsewhere is not in it: the rows are merged as ever.
    more = lay(WITH, [*parts, rowed("c", row("more", 103))], shared=SHARED)
    assert users(more) == [b"root", b"mail", b"app", b"more", b"web"]


def test_a_file_that_all_remove_is_gone() -> None:
    gone = [row("root", None), row("mail", None)]
    target = lay(WITH, [rowed("a", *gone, deleted=["etc/passwd"])], shared=SHARED)
    assert of(target, "etc/passwd") is None
    kept = lay(WITH, [rowed("a", *gone, deleted=["etc/passwd"]), rowed("b", row("web", 102))],
               shared=SHARED)
    assert users(kept) == [b"web"]


def test_a_file_that_parts_bring() -> None:
    made = file("etc/passwd", b"x", mode=0o600)
    parts = [laid("a", layer(made, rows=[row("app", 101)])),
             laid("b", layer(made, rows=[row("web", 102)]))]
    target = lay(tree(directory("etc")), parts, shared={})
    assert users(target) == [b"app", b"web"]
    assert of(target, "etc/passwd").mode == 0o600  # type: ignore[union-attr]


@pytest.mark.parametrize(("action", "found"), [
    ("keep", [b"root", b"mail", b"app"]), ("replace", None), ("concatenate", "question")])
def test_a_file_set_with_a_whole_shared_file(action: str, found: object) -> None:
    mine = laid("mine", layer(file("etc/passwd", b"mine:x:1:1::/:/bin/sh\n")), kind=FILESET)
    target = lay(WITH, [rowed("a", row("app", 101)), mine], shared=SHARED,
                 answers=[Answer(b"etc/passwd", (), action)])
    if found == "question":
        assert conflicts(target) == [("etc/passwd", ("a", "mine"))]
    elif found is None:
        assert target.sources[b"etc/passwd"].blob == "blob of mine"
        assert b"etc/passwd" not in target.generated
    else:
        assert users(target) == found


def test_links_follow_from_merged_alternatives() -> None:
    path = b"var/lib/dpkg/alternatives/pager"
    content = b"auto\n/usr/bin/pager\n\n/bin/more\n50\n\n"
    base = tree(file(path.decode(), content), symlink("usr/bin/pager", "/etc/alternatives/pager"),
                symlink("etc/alternatives/pager", "/bin/more"), symlink("bin", "usr/bin"),
                file("usr/bin/more", b"one"))
    merger = registry.merger_for(path)
    assert merger is not None
    after = b"auto\n/usr/bin/pager\n\n/bin/more\n50\n/usr/bin/less\n77\n\n"
    change = rows.diff(merger, path, content, after)
    part = laid("less", layer(file("usr/bin/less", b"two"), rows=change))
    target = lay(base, [part], shared={path: content})
    assert target.generated[path] == after
    assert of(target, "etc/alternatives/pager") == symlink("etc/alternatives/pager",
                                                           "/usr/bin/less")


# -- what is there to put back -------------------------------------------------------------------


def test_sources_of_the_bases_own_files() -> None:
    """What parts change or delete can be put back on a machine that has them."""
    base = tree(file("f", b"one"), file("g", b"two", link="g"), file("h", b"two", link="g"))
    restore = laid("", layer(file("f", b"one"), file("g", b"two")), kind=RESTORE)
    part = laid("a", layer(file("f", b"two"), deleted=["g"]))
    there = lay(base, [part], shared={}, restore=restore)
    back = lay(base, [], shared={}, restore=restore)
    assert back.manifest == base
    work = Work(there.manifest, back.manifest, back.sources, back.generated)
    assert work.unobtainable == ()
    assert sorted(e.path for e in work.contents) == [b"f"]


@settings(max_examples=60)
@given(making.trees(), st.lists(making.trees(), min_size=2, max_size=2))
def test_any_image_of_a_composite_can_become_any_other(base: Manifest,
                                                       golds: list[Manifest]) -> None:
    """Parts and restore part have all contents that are ever needed."""
    manifests = {name: difference(base, gold) for name, gold in zip("pq", golds, strict=True)}
    restore = Laid(name="", kind=RESTORE, blob="blob of base",
                   manifest=restore_manifest(base, manifests.values()))
    targets: list[Target] = []
    for chosen in (), ("p",), ("q",), ("p", "q"):
        try:
            target = lay(base, [laid(n, *manifests[n].layers) for n in chosen], shared={},
                         restore=restore)
        except exceptions.InvalidInput:  # links go round
            assume(False)
        if not target.conflicts:
            targets.append(target)
    for one, two in itertools.permutations(targets, 2):
        work = Work(one.manifest, two.manifest, two.sources, two.generated)
        assert work.unobtainable == ()


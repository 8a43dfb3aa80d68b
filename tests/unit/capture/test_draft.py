from __future__ import annotations

from splitimage_driver.capture.draft import ALWAYS, Draft, relinked
from splitimage_driver.model import part as parts_
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import Row
from tests.unit.making import directory, file, symlink, tree

WEB, DB, PHP = "web", "db", "php"


def draft() -> Draft:
    found = Draft([WEB, DB, PHP], "x-rest")
    found.add_groups({
        "webd": frozenset({WEB}), "dbd": frozenset({DB}), "phpd": frozenset({PHP}),
        "libz": frozenset({WEB, PHP}), "libc": frozenset({WEB, DB, PHP}), "odd": frozenset(),
    }, {WEB: (), DB: (), PHP: (DB,)})
    return found


def paths(manifest: parts_.PartManifest, when: tuple[str, ...] = ()) -> set[str]:
    return {e.path.decode() for layer in manifest.layers if layer.when == when
            for e in layer.entries}


def test_groups_become_parts_that_software_requires() -> None:
    found = draft()
    assert found.requires == {
        WEB: {"dep.php.web", "dep.db.php.web"}, DB: {"dep.db.php.web"},
        PHP: {"dep.php.web", "dep.db.php.web", DB}}
    assert found.packages == {WEB: {"webd"}, DB: {"dbd"}, PHP: {"phpd"}, "dep.php.web": {"libz"},
                              "dep.db.php.web": {"libc"}, "x-rest": {"odd"}}
    assert [found.kind(name) for name in (WEB, "dep.php.web", "x-rest")] == [
        parts_.SOFTWARE, parts_.DEPENDENCY, parts_.REST]


def test_closure() -> None:
    found = draft()
    assert found.closure(PHP) == {PHP, DB, "dep.php.web", "dep.db.php.web"}
    assert found.closure(DB) == {DB, "dep.db.php.web"}
    # Whoever brings libz has libc too; not all of them have the database.
    assert found.closure("dep.php.web") == {"dep.php.web", "dep.db.php.web"}
    assert found.closure("x-rest") == {"x-rest"}


def test_layers_by_condition_which_never_names_the_part_itself() -> None:
    found = draft()
    for when in ALWAYS, frozenset({PHP}), frozenset({PHP, WEB}), frozenset({WEB}):
        e = file(f"f.{'.'.join(sorted(when))}")
        found.claim(WEB, when, e.path, e)
    found.claim(WEB, ALWAYS, b"gone", None)
    found.claim_row(DB, frozenset({DB}), Row(b"etc/passwd", b"db", b"db:x"))
    manifests = found.manifests(tree(), [])
    assert {layer.when for layer in manifests[WEB].layers} == {(), (PHP,)}
    assert paths(manifests[WEB]) == {"f.", "f.web"}
    assert paths(manifests[WEB], (PHP,)) == {"f.php", "f.php.web"}
    assert manifests[WEB].layers[0].deleted == (b"gone",)
    assert [(layer.when, len(layer.rows)) for layer in manifests[DB].layers] == [((), 1)]
    # A piece of software without a file is a part all the same.
    assert manifests[PHP].layers == ()


def test_the_last_claim_of_a_path_counts() -> None:
    found = draft()
    for content in b"one", b"two":
        found.claim(WEB, ALWAYS, b"f", file("f", content))
    assert [e.size for _, e in found.manifests(tree(), [])[WEB].entries()] == [3]
    assert list(found.entries(WEB)) == [(ALWAYS, file("f", b"two"))]


def test_directories_come_with_the_metadata_of_the_newest_state() -> None:
    found = draft()
    e = file("srv/app/data/f")
    found.claim(WEB, ALWAYS, e.path, e)
    old = tree(directory("srv"), directory("srv/app", 0o700), e)
    new = tree(directory("srv/app", 0o750, uid=7))
    brought = found.manifests(tree(directory("srv", 0o711)), [old, new])[WEB]
    assert {e.path.decode(): (e.mode, e.uid) for _, e in brought.entries() if e.is_dir} == {
        "srv/app": (0o750, 7), "srv/app/data": (0o755, 0)}


def test_a_directory_in_the_place_of_a_link_is_told_as_such() -> None:
    found = draft()
    e = directory("www")
    found.claim(WEB, ALWAYS, e.path, e)
    [layer] = found.manifests(tree(symlink("www", "srv")), [])[WEB].layers
    assert (layer.entries, layer.deleted) == ((e,), (b"www",))
    [layer] = found.manifests(tree(directory("www", 0o700)), [])[WEB].layers
    assert layer.deleted == ()


def links(*found: FileEntry) -> dict[str, str]:
    return {e.path.decode(): e.link.decode() for e in relinked(found)}


def test_hard_link_groups_as_far_as_the_entries_go() -> None:
    one = [file(name, b"one", link="a") for name in "abc"]
    assert links(*one) == {"a": "a", "b": "a", "c": "a"}
    # The leader is the base's, or another part's: laying finds it.
    assert links(*one[1:]) == {"b": "a", "c": "a"}
    assert links(one[2]) == {"c": "a"}
    # Or something else is in its place here.
    assert links(file("a", b"other"), *one[1:]) == {"a": "", "b": "b", "c": "b"}
    assert links(file("x"), symlink("y", "x")) == {"x": "", "y": ""}


def test_parts_have_one_name_for_equal_content() -> None:
    drafts = [draft(), draft()]
    entries = [file(name, b"one") for name in ("b", "a", "c/d")]
    for found, order in zip(drafts, (entries, entries[::-1]), strict=True):
        for e in order:
            found.claim(WEB, ALWAYS, e.path, e)
    first, second = (found.manifests(Manifest(), [])[WEB].digest for found in drafts)
    assert first == second

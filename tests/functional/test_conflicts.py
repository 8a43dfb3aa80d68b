"""Three parts that all change the same files of the base: what the rules merge, what
they ask, and what the administrator's and the tenant's answers make of it, in
assembled disks."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from splitimage_driver.application import Application
from splitimage_driver.model.plan import Request
from tests.functional import smallgold
from tests.functional.command import Command, Done, refused

pytestmark = pytest.mark.must_show("streams", 5)

PARTS = ("cache", "mail", "queue")
SUBSETS = [chosen for size in (1, 2, 3) for chosen in itertools.combinations(PARTS, size)]
CONF = b"name = gold\nport = 80\nlog = no\nuser = root\nlimit = 10\nend\n"
#: Each part changes a line of its own: three-way.
MERGED = "etc/daemon.conf"
#: Each brings the file: concatenation.
ADDED = "etc/daemons"
#: Cache and queue change the same line, mail another one: a question.
ASKED = "etc/policy.conf"
VERSIONS = {
    MERGED: {"cache": (b"name = gold", b"name = cache"), "mail": (b"log = no", b"log = mail"),
             "queue": (b"limit = 10", b"limit = 99")},
    ASKED: {"cache": (b"port = 80", b"port = 11211"), "mail": (b"limit = 10", b"limit = 25"),
            "queue": (b"port = 80", b"port = 5672")},
}
OWN = CONF.replace(b"port = 80", b"port = 4000")


def changed(path: str, parts: Iterable[str], content: bytes = CONF) -> bytes:
    """With the lines of these parts."""
    for part in parts:
        content = content.replace(*VERSIONS[path][part])
    return content


def tree(place: Path, files: Mapping[str, bytes]) -> Path:
    for path, content in files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content)
    return place


def files(part: str) -> dict[str, bytes]:
    return {MERGED: changed(MERGED, [part]), ASKED: changed(ASKED, [part]),
            ADDED: f"{part}\n".encode(), f"usr/share/{part}": f"{part}\n".encode()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A store with the composite, for reading only, and what the command said that
    added the last part."""
    place = tmp_path_factory.mktemp("three")
    gold = smallgold.build(place, {MERGED: CONF, ASKED: CONF})
    command = Command(place / "store")
    done = command("capture", smallgold.NAME, *gold.arguments[:4])
    assert done.status == 0, done.err
    for part in PARTS:
        command("part", "create", part, "--from", tree(place / part, files(part)))
        done = command("composite", "add-part", smallgold.NAME, part, "-f", "json")
        assert done.status == 0, done.err
    return place / "store", done.json


@pytest.fixture
def three(made: tuple[Path, Any], tmp_path: Path) -> Command:
    """A copy of the store that a test may change."""
    return Command(Path(shutil.copytree(made[0], tmp_path / "store", symlinks=True)))


def asked(command: Command) -> list[tuple[str, list[str], str]]:
    return [(c["path"], c["parts"], c["answer"]) for c in command(
        "conflict", "list", smallgold.NAME, "-f", "json").json]


def resolve(command: Command, *words: str | Path) -> list[Any]:
    done = command("conflict", "resolve", smallgold.NAME, f"/{ASKED}", *words, "-f", "json")
    assert done.status == 0, done.err
    return list(done.json)


def wanted(*parts: str) -> list[str]:
    return [smallgold.NAME, *(word for part in parts for word in ("--part", part))]


def disk(command: Command, place: Path, *words: str | Path) -> dict[str, bytes]:
    """The three files of an assembled disk."""
    raw = place / "disk.raw"
    done = command("assemble", *words, "--disk-format", "raw", "-o", raw, "--force", "-f", "json")
    assert done.status == 0, done.err
    return {path: subprocess.run(["/sbin/debugfs", "-R", f"cat /{path}", raw], check=True,
                                 capture_output=True).stdout for path in (MERGED, ASKED, ADDED)}


def planned(command: Command, *parts: str) -> dict[str, bytes]:
    """What becomes of them, without a disk."""
    application = Application(command.store)
    try:
        target = application.images.plan(Request(composite=smallgold.NAME, parts=parts)).target
        assert target is not None
        contents = {hashlib.sha256(content).digest(): content for content in (
            CONF, OWN, *(c for part in PARTS for c in files(part).values()))}
        return {path: target.generated.get(path.encode())
                or contents[target.manifest.by_path[path.encode()].sha256]
                for path in (MERGED, ASKED, ADDED)}
    finally:
        application.store.close()


def rules(parts: Iterable[str]) -> dict[str, bytes]:
    """What needs no answer."""
    return {MERGED: changed(MERGED, parts),
            ADDED: b"".join(f"{part}\n".encode() for part in sorted(parts))}


def is_refused(done: Done, *parts: str) -> None:
    refused(done, 16, f"parts {' and '.join(parts)} of composite small disagree about /{ASKED}: "
            "they differ and no rule merges them")
    assert done.err.splitlines()[1] == ("  hint: its administrator answers: splitimage conflict "
                                        f"resolve small /{ASKED}")


def test_all_three_ways(three: Command, made: tuple[Path, Any], tmp_path: Path) -> None:
    # The administrator is told at once.
    (conflict,) = made[1]["conflicts"]
    assert (conflict["path"], conflict["parts"]) == (f"/{ASKED}", ["cache", "queue"])
    assert asked(three) == [(f"/{ASKED}", ["cache", "queue"], "")]
    # Nobody launches what is not decided; all else is as the rules have it.
    is_refused(three("launch", *wanted("cache", "queue")), "cache", "queue")
    is_refused(three("assemble", *wanted(*PARTS), "-o", tmp_path / "none.qcow2"), *PARTS)
    assert not (tmp_path / "none.qcow2").exists()
    for chosen in SUBSETS:
        if not {"cache", "queue"} <= set(chosen):
            assert planned(three, *chosen) == rules(chosen) | {ASKED: changed(ASKED, chosen)}
    # What is answered is kept, and used whatever else is chosen.
    (tmp_path / "own").write_bytes(OWN)
    before = three("plan", *wanted("cache", "mail"), "-f", "json").json["recipe"]
    (answer,) = resolve(three, "file", "--file", tmp_path / "own")
    assert (answer["parts"], answer["answer"]) == (["cache", "queue"], "file")
    assert asked(three) == [(f"/{ASKED}", ["cache", "queue"], "file")]
    assert planned(three, "cache", "queue")[ASKED] == OWN
    assert three("plan", *wanted("cache", "mail"), "-f", "json").json["recipe"] == before
    assert disk(three, tmp_path, *wanted(*PARTS)) == rules(PARTS) | {
        ASKED: changed(ASKED, ["mail"], OWN)}
    # A file set of a tenant's is the tenant's question.
    words = [*wanted(*PARTS), "--fileset", str(tree(tmp_path / "mine", {ASKED: b"mine\n"}))]
    done = three("launch", *words)
    refused(done, 16, f"file set mine and parts cache and mail and queue disagree about /{ASKED}")
    assert f"--on-conflict (in Nova splitimage:conflicts) /{ASKED}=keep|" in done.err
    recipes = {three("plan", *words, "--on-conflict", f"/{ASKED}={action}", "-f", "json").json[
        "recipe"] for action in ("keep", "replace", "concatenate")}
    assert len(recipes) == 3


@pytest.mark.accept
def test_a_tenants_answer_in_a_disk(three: Command, tmp_path: Path) -> None:
    resolve(three, "replace", "--part", "queue")
    parts = changed(ASKED, ["mail", "queue"])
    words = [*wanted(*PARTS), "--fileset", str(tree(tmp_path / "mine", {ASKED: b"mine\n"}))]
    for action, found in (("keep", parts), ("replace", b"mine\n")):
        told = disk(three, tmp_path, *words, "--on-conflict", f"/{ASKED}={action}")
        assert told == rules(PARTS) | {ASKED: found}


@pytest.mark.accept
def test_concatenated_in_a_disk(three: Command, tmp_path: Path) -> None:
    told = resolve(three, "concatenate")
    both = changed(ASKED, ["cache"]) + changed(ASKED, ["queue"])
    assert planned(three, "cache", "queue")[ASKED] == both
    assert [(c["parts"], c["answer"]) for c in told] == [(["cache", "queue"], "concatenate")]
    # Mail's line is that of the second text: from there on it is the base's.
    assert disk(three, tmp_path, *wanted(*PARTS)) == rules(PARTS) | {
        ASKED: changed(ASKED, ["cache"]) + changed(ASKED, ["queue", "mail"])}


@pytest.mark.accept
@pytest.mark.parametrize(("words", "together"), [
    (("keep",), changed(ASKED, ["mail"])),
    (("replace", "--part", "queue"), changed(ASKED, ["mail", "queue"])),
    (("replace", "--part", "cache"), changed(ASKED, ["cache", "mail"])),
])
def test_each_answer_in_a_disk(three: Command, tmp_path: Path, words: tuple[str, ...],
                               together: bytes) -> None:
    resolve(three, *words)
    assert disk(three, tmp_path, *wanted(*PARTS)) == rules(PARTS) | {ASKED: together}
    alone = together.replace(b"limit = 25", b"limit = 10")
    assert disk(three, tmp_path, *wanted("cache", "queue")) == rules(["cache", "queue"]) | {
        ASKED: alone}

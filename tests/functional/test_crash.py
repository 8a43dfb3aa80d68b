"""Killed at every step: nothing is lost, nothing is left behind, and the same
command succeeds when it is run again.

Every moment of a command is looked at twice. A *shadow* of the store is what
SIGKILL would leave at that moment; all of them are opened and checked. And
the command is really killed, with its appliance running, at a sample of them
here and at each kind of them in ``./run accept``.
"""

from __future__ import annotations

import collections
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from splitimage_driver import exceptions
from splitimage_driver.assembly import assembler
from splitimage_driver.model import server as states
from splitimage_driver.model.plan import Request
from tests.functional import bootgold
from tests.functional.dying import Child, Moments, State, moments_of, opened, run, state

MINI = bootgold.PAIR
KILLED = -signal.SIGKILL


def _all_or_nothing(moments: Moments, before: State, after: State) -> None:
    """At each moment the store is as before the command, until it is, at one
    stroke, as after it."""
    assert not after.findings and not after.queue
    seen = [found for _, found in moments]
    for label, found in moments:
        assert found in (before, after), label
    turned = seen.index(after)
    assert turned > 0 and all(found == after for found in seen[turned:])


def _killed(store: Path, child: Child) -> State:
    """What is left by one that was just killed."""
    assert child.process.returncode == KILLED
    assert child.orphans() == []
    found = state(store)
    assert found.findings == () and found.queue == 0
    assert not any(file.startswith("tmp/") for file in found.files)
    return found


@pytest.fixture
def store(boot_store: Path) -> Path:
    return boot_store


# -- capture -----------------------------------------------------------------------

@pytest.mark.must_show("main-job", 6)
def test_each_moment_of_a_capture(captured: tuple[Path, Moments],
                                  record_property: Callable[[str, Any], None]) -> None:
    store, moments = captured
    after = state(store)
    assert after.composites == (bootgold.NAME,)
    assert set(bootgold.NAMES) < set(after.parts)
    # Before the composite is recorded there is nothing at all.
    before = State(findings=(), queue=0, composites=(), members=(), parts=(), images=(), servers=(),
                   files=frozenset())
    _all_or_nothing(moments, before, after)
    assert len(moments) > 200
    record_property("moments of a capture", len(moments))


def _kinds(moments: Moments) -> list[tuple[str, int]]:
    """The first and last of each kind of moment, as its label and how often
    that came before. Where a directory of objects is made depends on digests,
    and that of the base's disk is another each time."""
    count = collections.Counter(label for label, _ in moments)
    last = {(label, number - 1) for label, number in count.items() if label != "mkdir objects"}
    return sorted({(label, 0) for label in count} | last)


def _same_capture(found: State, other: State) -> bool:
    """Of the same machine: the base's disk has other bytes each time."""
    def known(state: State) -> set[str]:
        return {file for file in state.files if file.startswith("manifests/")}
    return known(found) == known(other) and len(found.files) == len(other.files) and (
        msgspec.structs.replace(found, files=other.files) == other)


@pytest.mark.accept
@pytest.mark.must_show("main-job", 6)
@pytest.mark.parametrize("part", range(8))
def test_capture_killed(captured: tuple[Path, Moments], boot_gold: Path, tmp_path: Path,
                        part: int) -> None:
    """Really killed at each kind of moment, and run again each time."""
    after, words = state(captured[0]), bootgold.capture(boot_gold)
    for wanted in _kinds(captured[1])[part::8]:
        store = tmp_path / "store"
        with Child(store, *words, step=True) as child:
            seen: collections.Counter[str] = collections.Counter()
            for label in child:
                if (label, seen[label]) == wanted:
                    child.kill()
                seen[label] += 1
            found = _killed(store, child)
        assert _same_capture(found, after) or not found.files, wanted
        if not found.composites:
            run(store, *words)
        assert _same_capture(state(store), after), wanted
        shutil.rmtree(store)


@pytest.mark.accept
@pytest.mark.must_show("main-job", 6)
def test_a_capture_killed_while_it_packs(captured: tuple[Path, Moments], boot_gold: Path,
                                         tmp_path: Path) -> None:
    store = tmp_path / "store"
    with Child(store, *bootgold.capture(boot_gold), step=True) as child:
        child.reach("pack begins", "utime manifests", "committed", "utime objects")
        # Some parts are recorded, one is on its way.
        with opened(store) as application:
            assert application.store.parts()
            with pytest.raises(exceptions.InUse, match="in use by capture"):
                application.store.delete_part(application.store.parts()[0].id)
        child.kill()
        assert _killed(store, child).files == frozenset()


# -- assembly and publication --------------------------------------------------------

def _finished(store: Path, before: State, name: str) -> State:
    """The state with one more image, which has a disk and a manifest."""
    after = state(store)
    assert after.images == tuple(sorted((*before.images, name)))
    assert len(after.files - before.files) == 2 and before.files < after.files
    assert msgspec.structs.replace(after, images=before.images, files=before.files) == before
    return after


@pytest.mark.must_show("main-job", 6)
def test_each_moment_of_an_assembly(captured: tuple[Path, Moments],
                                    assembled: tuple[Path, Moments],
                                    record_property: Callable[[str, Any], None]) -> None:
    before, (path, moments) = state(captured[0]), assembled
    _all_or_nothing(moments, before, _finished(path, before, "mini+apache+php"))
    assert len(moments) > 50
    record_property("moments of an assembly", len(moments))


@pytest.mark.accept
@pytest.mark.must_show("main-job", 6)
@pytest.mark.parametrize("part", range(8))
def test_assembly_killed(store: Path, part: int) -> None:
    """Really killed at each moment, and run again each time."""
    before = state(store)
    for number in range(part, 1000, 8):
        with Child(store, *bootgold.assemble(*MINI), step=True) as child:
            for count, _ in enumerate(child):
                if count == number:
                    child.kill()
            if child.process.wait() == 0:
                assert number > 50
                return
            found = _killed(store, child)
        run(store, *bootgold.assemble(*MINI))
        after = _finished(store, before, "mini+apache+php")
        assert found in (before, after)
        with opened(store) as application:
            application.store.delete_image("mini+apache+php")
        assert state(store) == before
    pytest.fail("it has no end")


@pytest.mark.must_show("main-job", 6)
def test_an_assembly_killed_at_awkward_moments(store: Path) -> None:
    before = state(store)
    # While the appliance starts, which then has nobody to talk to.
    with Child(store, *bootgold.assemble(*MINI), step=True) as child:
        child.reach("appliance begins")
        child.go()
        time.sleep(1)
        assert child.orphans()
        child.kill()
        assert _killed(store, child) == before
    # While files travel into the disk.
    with Child(store, *bootgold.assemble(*MINI), step=True) as child:
        child.reach("inject begins")
        child.kill()
        assert _killed(store, child) == before
    # The disk is an object already, and no record speaks of it.
    with Child(store, *bootgold.assemble(*MINI), step=True) as child:
        child.reach("publish begins", "utime objects")
        child.kill()
        assert _killed(store, child) == before
    assert run(store, *bootgold.assemble(*MINI))
    _finished(store, before, "mini+apache+php")


@pytest.mark.accept
@pytest.mark.must_show("main-job", 6)
def test_killed_at_random_times(store: Path, boot_gold: Path, tmp_path: Path) -> None:
    """Not at the moments that somebody thought of."""
    chosen, before, new = random.Random(6), state(store), tmp_path / "new"
    for seconds in (chosen.uniform(0.3, 12) for _ in range(12)):
        with Child(store, *bootgold.assemble(*MINI)) as child:
            time.sleep(seconds)
            if child.kill() == 0:
                break
            assert _killed(store, child) == before
    run(store, *bootgold.assemble(*MINI))
    _finished(store, before, "mini+apache+php")
    for seconds in (chosen.uniform(0.3, 24) for _ in range(12)):
        with Child(new, *bootgold.capture(boot_gold)) as child:
            time.sleep(seconds)
            if child.kill() == 0:
                break
            assert _killed(new, child).files == frozenset()
    if not state(new).composites:
        run(new, *bootgold.capture(boot_gold))
    assert _same_capture(state(new), before)


@pytest.mark.must_show("main-job", 6)
@pytest.mark.parametrize(("number", "begun"), [
    (signal.SIGTERM, "inject"),
    pytest.param(signal.SIGINT, "appliance", marks=pytest.mark.accept),
    pytest.param(signal.SIGTERM, "appliance", marks=pytest.mark.accept),
    pytest.param(signal.SIGINT, "inject", marks=pytest.mark.accept)])
def test_told_to_end(store: Path, number: int, begun: str) -> None:
    """By a signal that can be answered: it leaves nothing itself, before
    anybody opens the store again."""
    before = state(store)
    # Where tests run side by side others have appliances, too.
    places = [store / "tmp"] + [Path("/tmp")] * ("PYTEST_XDIST_WORKER" not in os.environ)
    with Child(store, *bootgold.assemble("mysql", "php"), step=True) as child:
        child.reach(f"{begun} begins")
        known = {path for place in places for path in place.glob("libguestfs*")}
        child.process.send_signal(number)
        assert child.wait() in (128 + number, -number), child.errors()
        assert "Traceback" not in child.errors()
        assert child.orphans() == []
        assert list((store / "tmp").iterdir()) == []
        assert {path for place in places for path in place.glob("libguestfs*")} <= known
    assert state(store) == before


@pytest.mark.must_show("main-job", 6)
def test_an_assembly_that_fails_half_way(store: Path, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest's disk is full although the check beforehand said it was
    not."""
    files = tmp_path / "large"
    files.mkdir()
    (files / "large").write_bytes(random.Random(1).randbytes(24 << 20))
    with opened(store) as application:
        application.images.create_part("large", files)
    before = state(store)
    request = Request(composite=bootgold.NAME, parts=MINI, filesets=("large",))
    monkeypatch.setattr(assembler, "validate", lambda session, work: None)
    with opened(store) as application:
        with pytest.raises(exceptions.ApplianceFailed, match=r"No space left on device"):
            application.images.assemble(request)
        # Without being opened anew.
        assert application.store.queue() == [] == application.store.history("assembly")
        assert list((store / "tmp").iterdir()) == []
        with application.store.lock("anything", timeout=0):
            pass
    assert state(store) == before


# -- small changes --------------------------------------------------------------------

@pytest.mark.must_show("main-job", 6)
def test_each_moment_of_changes_without_an_appliance(completed_store: Path,
                                                     tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "page").write_text("of a tenant")
    commands: list[list[str | Path]] = [
        ["part", "create", "pages", "--from", files],
        ["composite", "remove-part", bootgold.NAME, "wiki"],
        ["image", "prune", "--max-age", "0", "--max-bytes", "1"],
        ["part", "delete", "pages"],
        ["composite", "delete", bootgold.NAME]]
    for words in commands:
        before = state(completed_store)
        moments = moments_of(completed_store, words, tmp_path / "copy")
        _all_or_nothing(moments, before, state(completed_store))
    after = state(completed_store)
    # The part that was taken out before stays, for another composite.
    assert after.parts == ("wiki",) and after.images == after.composites == ()


# -- servers -------------------------------------------------------------------------

def _afterwards(store: Path, child: Child) -> str:
    """A server whose launch has ended anyhow runs, or is known not to; it is
    started again if need be, and deleted. Returns what its state was."""
    with opened(store) as application:
        servers = application.servers.list()
        # Only a server that runs may outlive the command.
        assert set(child.orphans()) == {s.pid for s in servers if s.pid}
        assert list(application.store.check()) == []
        if not servers:
            return ""
        assert len(servers) == 1
        found = servers[0].state
        assert found == (states.RUNNING if servers[0].pid else states.STALE)
        if found == states.STALE:
            assert application.servers.start("web").state == states.RUNNING
        application.servers.delete("web")
    return found


@pytest.mark.must_show("main-job", 6)
def test_a_launch_killed_at_awkward_moments(completed_store: Path) -> None:
    before = state(completed_store)
    for place, expected in ((("mkdir servers", "mkdir servers"), states.STALE),
                            (("rename servers", "committed"), states.STALE),
                            (("rename servers", "committed", "committed"), states.RUNNING)):
        with Child(completed_store, *bootgold.launch(*MINI, name="web"), step=True) as child:
            child.reach(*place)
            child.kill()
            assert _afterwards(completed_store, child) == expected
        assert state(completed_store) == before


@pytest.mark.accept
@pytest.mark.must_show("main-job", 6)
def test_a_launch_killed_at_each_moment(completed_store: Path) -> None:
    before, seen = state(completed_store), []
    for number in range(1000):
        with Child(completed_store, *bootgold.launch(*MINI, name="web"), step=True) as child:
            for count, _ in enumerate(child):
                if count == number:
                    child.kill()
            done = child.process.wait() == 0
            seen.append(_afterwards(completed_store, child))
        assert state(completed_store) == before
        if done:
            break
    assert len(seen) > 25
    # First it is not there, then it is known not to run, then it runs.
    order = ["", states.STALE, states.RUNNING]
    assert set(seen) == set(order) and seen == sorted(seen, key=order.index)


@pytest.mark.accept
@pytest.mark.must_show("main-job", 6)
def test_each_moment_of_publishing_a_booted_server(completed_store: Path,
                                                   tmp_path: Path) -> None:
    store, before = completed_store, state(completed_store)
    words = [*bootgold.launch(*MINI, name="web"), "--wait", "80", "--publish", "booted"]
    moments = moments_of(store, words, tmp_path / "copy")
    after = state(store)
    # The disk and the server's directory: this guest changes no file.
    assert len(after.files - before.files) == 2
    assert [name for name in after.images if name not in before.images]
    for label, found in moments:
        assert found.findings == () and found.queue == 0, label
        assert found.images in (before.images, after.images), label
        extra = found.files - before.files
        assert {file for file in extra if not file.startswith("servers/")} in (
            set(), {file for file in after.files - before.files
                    if not file.startswith("servers/")}), label
    # And really killed while it makes the snapshot: the server runs on.
    with opened(store) as application:
        application.store.delete_image(next(n for n in after.images if n not in before.images))
        application.servers.delete("web")
    for place in (("snapshot begins",), ("snapshot ends",),
                  ("snapshot ends", "utime objects")):
        with Child(store, *words, step=True) as child:
            child.reach(*place)
            child.kill()
            with opened(store) as application:
                server = application.servers.show("web")
                assert server.state == states.RUNNING
                application.servers.launcher.wait(server, 80, timeout=120)
                assert list(application.store.check()) == []
                application.servers.delete("web")
            assert child.orphans() == []
    assert run(store, *words)
    with opened(store) as application:
        application.servers.delete("web")

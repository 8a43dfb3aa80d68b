"""What parts of the demonstration's machine disagree about, laid by a running guest:
the guest's own program in a chroot."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from splitimage_driver import exceptions
from splitimage_driver.application import Application
from splitimage_driver.capture.identity import Identity
from splitimage_driver.composites import CompositeService
from splitimage_driver.model.plan import Request
from tests.functional import chroot, trees

pytest_plugins = ("tests.functional.lamp",)
pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root"),
              pytest.mark.accept, pytest.mark.must_show("streams", 5)]
#: A file of the base; its words and what parts make of them.
CONF = "etc/login.defs"
PARTS = {"one": ((b"UID_MAX\t\t\t60000", b"UID_MAX\t\t\t50000"), b"from one\n"),
         "two": ((b"LOGIN_TIMEOUT\t\t60", b"LOGIN_TIMEOUT\t\t30"), b"from two\n"),
         "three": ((b"UID_MAX\t\t\t60000", b"UID_MAX\t\t\t40000"), b"from three\n")}
#: All three bring it.
ADDED = "etc/daemons"


@pytest.fixture
def application(native: Callable[[str], Application], tmp_path: Path) -> Application:
    """With three more parts in the composite."""
    made = Application(Path(shutil.copytree(native("steps").path, tmp_path / "store",
                                            symlinks=True)))
    trees.native(made)
    with trees.mounted(made.store.path(made.store.composite("lamp").base.disk)) as tree:
        content = tree.read(CONF)
    for name, (words, added) in PARTS.items():
        assert content.count(words[0]) == 1
        place = tmp_path / name
        (place / "etc").mkdir(parents=True)
        (place / CONF).write_bytes(content.replace(*words))
        (place / ADDED).write_bytes(added)
        part = made.images.create_part(name, place)
        made.composites.add_part("lamp", part.id)
    return made


def laid(application: Application, *parts: str, place: Path) -> tuple[bytes, bytes]:
    """The two files of a running guest that has laid them."""
    request = Request(composite="lamp", parts=parts)
    with application.images.deliveries.streamed(request) as streamed:
        assert streamed.delivery is not None and streamed.plan.target is not None
        with trees.mounted(application.store.path(streamed.disk)) as tree:
            with chroot.entered(tree) as inside:
                chroot.give(inside, streamed.delivery, application.store, place / "plan.squashfs")
                process = inside.start()
                told, _ = process.communicate(timeout=900)
                assert process.returncode == 0, told
                report = inside.reports()[-1]
            assert (report["event"], report["state"]) == ("end", "complete"), report
            assert trees.differences(
                tree.manifest(), streamed.plan.target.manifest, times=True,
                excludes=lambda e: chroot.is_own(e) or Identity().excludes(e)) == []
            return tree.read(CONF), tree.read(ADDED)


def test_the_guest_lays_what_was_decided(application: Application, tmp_path: Path) -> None:
    composites: CompositeService = application.composites
    with pytest.raises(exceptions.OpenConflict, match="parts one and three of composite lamp"):
        laid(application, "one", "three", place=tmp_path)
    # By the rules: each its line; one after the other.
    conf, added = laid(application, "one", "two", place=tmp_path)
    assert b"UID_MAX\t\t\t50000" in conf and b"LOGIN_TIMEOUT\t\t30" in conf
    assert added == b"from one\nfrom two\n"
    # By the administrator.
    composites.resolve("lamp", f"/{CONF}", "replace", part="three")
    conf, added = laid(application, *PARTS, place=tmp_path)
    assert b"UID_MAX\t\t\t40000" in conf and b"LOGIN_TIMEOUT\t\t30" in conf
    assert sorted(added.splitlines()) == [b"from one", b"from three", b"from two"]

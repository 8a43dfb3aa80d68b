"""What is told of the appliance's errors."""

from __future__ import annotations

import pytest

from splitimage_driver.assembly import guestfs


@pytest.mark.parametrize(("said", "told"), [
    ("tar_in: tar: x: Cannot write: No space left on device\n"
     "tar: Exiting with failure status due to previous errors",
     "tar_in: tar: x: Cannot write: No space left on device"),
    # How tar tells it where a part of the write was done.
    ("tar_in: tar: large: Wrote only 6144 of 10240 bytes\n"
     "tar: Exiting with failure status due to previous errors",
     "tar_in: tar: large: Wrote only 6144 of 10240 bytes: No space left on device"),
    ("mount: wrong fs type", "mount: wrong fs type"), ("", "RuntimeError")])
def test_the_reason_is_told_and_not_the_story(said: str, told: str) -> None:
    assert guestfs._line(RuntimeError(said)) == told


@pytest.mark.parametrize(("found", "kept"), [
    ("btrfsvol:/dev/sdb1/@", "btrfsvol:/dev/sda1/@"),
    ("btrfsvol:/dev/sda2/@", "btrfsvol:/dev/sda2/@"),
    ("btrfsvol:/dev/vdb/root/b", "btrfsvol:/dev/sda/root/b"),
    ("btrfsvol:/dev/vg/root/@", "btrfsvol:/dev/vg/root/@"), ("/dev/sda1", "/dev/sda1")])
def test_a_subvolume_keeps_a_name_that_holds_in_every_appliance(found: str, kept: str) -> None:
    assert guestfs._first_disk(found) == kept

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

"""Room: what tools and the appliance say when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from splitimage_driver import exceptions
from splitimage_driver.store import space
from splitimage_driver.store.space import Space

FAILURES = [exceptions.ToolFailed(tool="mksquashfs", status="status 1", reason="write failed"),
            exceptions.ApplianceFailed(step="injection", reason="I/O error")]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda f: type(f).__name__)
def test_a_failure_for_lack_of_room_says_so(failure: exceptions.SplitImageError, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "available", lambda path: 1 << 30)
    full = Space(tmp_path)
    monkeypatch.setattr(full, "exhausted", lambda: True)
    with pytest.raises(exceptions.StoreFull) as caught, full.guard():
        raise failure
    assert caught.value.__cause__ is failure


@pytest.mark.parametrize("said", [
    "FATAL ERROR: Failed to write to output filesystem",
    "error while writing at byte 0: No space left on device"])
def test_a_tool_that_tidied_up_is_taken_by_its_words(said: str, tmp_path: Path) -> None:
    with pytest.raises(exceptions.StoreFull), Space(tmp_path).guard():
        raise exceptions.ToolFailed(tool="mksquashfs", status="status 1", reason=said)


def test_a_guest_s_full_disk_is_not_the_store_s(tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "available", lambda path: 1 << 30)
    with pytest.raises(exceptions.ApplianceFailed), Space(tmp_path).guard():
        raise exceptions.ApplianceFailed(
            step="injection", reason="tar: x: Cannot write: No space left on device")


def test_a_large_write_fails_before_the_last_byte_is_used(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "available", lambda path: 1 << 20)
    with pytest.raises(exceptions.StoreFull), Space(tmp_path).guard():
        raise FAILURES[1]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda f: type(f).__name__)
def test_a_failure_for_another_reason_stays_itself(failure: exceptions.SplitImageError,
                                                   tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "available", lambda path: 1 << 30)
    with pytest.raises(type(failure)) as caught, Space(tmp_path).guard():
        raise failure
    assert caught.value is failure

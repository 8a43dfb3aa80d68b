from __future__ import annotations

import os
import stat
import threading
from typing import Any

import filelock
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver import exceptions
from splitimage_driver.store.locks import file_lock
from splitimage_driver.store.session import Session


def test_a_lock_excludes_threads_and_other_stores(open_local: Any) -> None:
    store, other = open_local(), open_local(lock_timeout=0.1)
    errors: list[Exception] = []

    def contend() -> None:
        try:
            with other.lock("recipe"):
                pass
        except exceptions.LockTimeout as error:
            errors.append(error)

    with store.lock("recipe"):
        thread = threading.Thread(target=contend)
        thread.start()
        thread.join()
        with other.lock("another"):
            pass
    assert len(errors) == 1 and "recipe" in str(errors[0])
    with other.lock("recipe"):
        pass


def test_a_lock_is_passed_on(store: Any) -> None:
    log: list[str] = []

    def wait() -> None:
        with store.lock("x"):
            log.append("second")

    with store.lock("x"):
        thread = threading.Thread(target=wait)
        thread.start()
        log.append("first")
    thread.join()
    assert log == ["first", "second"]


def test_a_lock_is_not_reentrant(open_local: Any) -> None:
    store = open_local(lock_timeout=0.1)
    with store.lock("x"), pytest.raises(exceptions.LockTimeout), store.lock("x"):
        pass


def test_names_of_lock_files_are_safe(store: Any) -> None:
    names = ["../../etc/passwd", "a/b", "a_b", "", "x" * 300, "é\n\0"]
    files = {store._locks.file(name) for name in names}
    assert len(files) == len(names)
    assert all(file.parent == store._locks.root and len(file.name) < 100 for file in files)


@given(st.text(), st.text())
def test_different_names_are_different_locks(one: str, two: str) -> None:
    from pathlib import Path

    from splitimage_driver.store.locks import Locks
    from splitimage_driver.store.space import Space
    locks = Locks(Path("/locks"), Space(Path("/")), 1)
    assert (locks.file(one) == locks.file(two)) == (one == two)


def test_idle_lock_files_are_tidied_and_held_ones_stay(store: Any, make: Any) -> None:
    with store.lock("idle"):
        pass
    with store.lock("held"):
        list(store.check(repair=True))
        assert sorted(path.name[:5] for path in (make.root / "locks").iterdir()) == [
            "held-", "sessi"]


def test_scratch_is_private_and_temporary(store: Any, make: Any) -> None:
    with store.scratch() as one, store.scratch() as two:
        assert one != two and one.parent == make.root / "tmp"
        assert stat.S_IMODE(one.stat().st_mode) == 0o700
        (one / "deep").mkdir()
        (one / "deep" / "file").write_text("x")
        (one / "deep").chmod(0o500)
    assert os.listdir(make.root / "tmp") == []


def test_scratch_goes_with_an_error(store: Any, make: Any) -> None:
    with pytest.raises(KeyError), store.scratch():
        raise KeyError
    assert os.listdir(make.root / "tmp") == []


def test_what_the_dead_left_is_removed_at_the_next_start(
        store: Any, make: Any, open_local: Any) -> None:
    tmp = make.root / "tmp"
    (tmp / "dead").mkdir()
    (tmp / "dead" / "file").write_text("x")
    (tmp / "dead.lock").touch()
    (tmp / "gone.lock").touch()
    (tmp / "file").touch()
    (tmp / "link").symlink_to("/etc")
    with store.scratch() as alive:
        open_local()
        assert sorted(os.listdir(tmp)) == [alive.name, alive.name + ".lock"]


def test_scratch_of_the_living_is_found_locked(store: Any) -> None:
    with store.scratch() as alive, pytest.raises(filelock.Timeout), file_lock(
            alive.with_name(alive.name + ".lock"), 0):
        pass


def test_a_session_lives_until_it_is_closed(store: Any, make: Any) -> None:
    one, two = (Session(make.root / "locks", store._space) for _ in range(2))
    for _ in range(2):
        assert one.alive(one.name) and one.alive(two.name) and two.alive(one.name)
    two.close()
    two.close()
    assert not one.alive(two.name) and not two.own and one.own
    (make.root / "locks" / "session-dead.lock").touch()
    assert not one.alive("dead")
    one.close()


def test_the_file_of_a_session_stays_with_it(store: Any, make: Any) -> None:
    store._locks.tidy()
    assert store._session.alive(store._session.name)
    store.close()
    assert os.listdir(make.root / "locks") == []

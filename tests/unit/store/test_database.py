from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.store.database import SCHEMA


@pytest.fixture
def database(store: Any, make: Any) -> Path:
    """Of a store with something in it, closed."""
    make.saved("lamp", make.part())
    store.record("launch", {"seconds": 1})
    store.close()
    return Path(make.root) / "splitimage.db"


def _damaged(content: bytes) -> dict[str, bytes]:
    return {"empty": b"", "text": b"this is no database\n" * 300,
            "cut": content[:len(content) // 3], "header": os.urandom(100) + content[100:],
            "pages": content[:4096] + b"\xff" * (len(content) - 4096)}


@pytest.mark.parametrize("how", ["empty", "text", "cut", "header", "pages"])
def test_a_damaged_database_is_one_line_and_left_as_it_is(
        database: Path, open_local: Any, how: str) -> None:
    content = _damaged(database.read_bytes())[how]
    database.write_bytes(content)
    with pytest.raises(exceptions.StoreCorrupt) as caught:
        store = open_local()
        store.composites()
        list(store.check(repair=True))
    assert "\n" not in str(caught.value) and str(database) in str(caught.value)
    assert database.read_bytes() == content


def test_damage_under_an_open_store(store: Any, make: Any) -> None:
    make.saved()
    make.sql("UPDATE composites SET document = x'ff'")
    with pytest.raises(exceptions.StoreCorrupt, match="composite"):
        store.composites()
    make.sql("DROP TABLE history")
    with pytest.raises(exceptions.StoreCorrupt, match="history"):
        store.record("launch", {})


def test_another_programs_database(tmp_path: Path, open_local: Any) -> None:
    (tmp_path / "store").mkdir()
    connection = sqlite3.connect(tmp_path / "store" / "splitimage.db")
    connection.execute("CREATE TABLE mine (id)")
    connection.close()
    with pytest.raises(exceptions.StoreCorrupt, match="not the database of a store"):
        open_local()


def test_another_schema(store: Any, make: Any, open_local: Any) -> None:
    make.sql(f"PRAGMA user_version = {SCHEMA + 1}")
    store.close()
    with pytest.raises(exceptions.StoreVersion) as caught:
        open_local()
    assert caught.value.fields == {"path": str(make.root), "found": SCHEMA + 1,
                                   "expected": SCHEMA}


def test_a_database_that_vanishes_is_not_made_anew(store: Any, make: Any) -> None:
    store.close()
    (make.root / "splitimage.db").unlink()
    with pytest.raises(exceptions.StoreCorrupt, match="not there"):
        store.composites()


def test_a_database_moved_away_leaves_its_log_for_repair(
        store: Any, make: Any, open_local: Any) -> None:
    make.saved()
    database = make.root / "splitimage.db"
    log = (make.root / "splitimage.db-wal").read_bytes()
    database.rename(make.root / "old.db")
    assert log and open_local().composites() == []
    kept = [path.read_bytes() for path in make.root.glob("splitimage.db-wal.*")]
    assert kept == [log]


def test_a_full_disk_is_a_full_store(store: Any, make: Any) -> None:
    connection = store._database._connection()
    connection.execute("PRAGMA max_page_count = 1")  # SQLite's own "disk is full"
    with pytest.raises(exceptions.StoreFull):
        for _ in range(100):
            store.record("launch", {"text": "x" * 10000})


def test_a_transaction_of_another_is_waited_for(open_local: Any) -> None:
    store = open_local(lock_timeout=0.0)
    with pytest.raises(exceptions.LockTimeout, match="database"), store._database.writing():
        other = open_local(lock_timeout=0.0)
        other._database.timeout = 0.01
        other.close()  # to open with that timeout
        other.record("launch", {})
    store.record("launch", {})
    assert len(store.history()) == 1


def test_a_failed_transaction_leaves_nothing(store: Any) -> None:
    with pytest.raises(KeyboardInterrupt), store._database.writing() as connection:
        connection.execute("INSERT INTO history (event, time, facts) VALUES ('x', 1, '{}')")
        raise KeyboardInterrupt
    assert store.history() == []


def test_threads_have_their_own_connections(store: Any) -> None:
    seen: list[int] = []

    def work(number: int) -> None:
        for step in range(5):
            store.record("launch", {"number": number, "step": step})
        seen.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [0, 1, 2, 3]
    assert len(store.history()) == 20


def test_a_place_that_cannot_be_a_store(tmp_path: Path, open_local: Any) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(exceptions.InvalidInput, match="store"):
        open_local()


def test_settings_that_crash_safety_rests_on(store: Any) -> None:
    def pragma(name: str) -> Any:
        return store._database.query(f"PRAGMA {name}")[0][0]

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2
    assert pragma("foreign_keys") == 1

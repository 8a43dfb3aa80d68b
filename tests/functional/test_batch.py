"""Batches for real: several processes, appliances and servers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo import gold as gold_machines
from splitimage_driver.application import Application
from splitimage_driver.capture.machine import Gold
from tests.functional import bootgold
from tests.functional.command import Command
from tests.functional.dying import opened, state

pytestmark = pytest.mark.must_show("planning", 5)
SERVER = {"memory": 128, "cpus": 1, "ports": [80]}


def entry(name: str, *parts: str, **fields: Any) -> dict[str, Any]:
    return {"composite": bootgold.NAME, "parts": parts, "name": name, **SERVER, **fields}


@pytest.fixture
def command(boot_store: Path, tmp_path: Path) -> Command:
    conf = tmp_path / "conf"
    # Injecting is slow against starting, so that what is shared is worth it.
    conf.write_text("[assembly]\nmax_parallel = 2\n")
    return Command(boot_store, "--config-file", conf)


def batch(tmp_path: Path, *entries: dict[str, Any]) -> Path:
    path = tmp_path / "batch.json"
    path.write_text(json.dumps(entries))
    return path


def test_a_batch_is_carried_out_as_planned(command: Command, boot_store: Path,
                                           tmp_path: Path) -> None:
    """Children from their parents' disks; one of them fails, and what was to
    be made from it is made from something else."""
    large = tmp_path / "large"
    large.mkdir()
    (large / "large").write_bytes(os.urandom(30 << 20))
    file = batch(tmp_path, entry("three", "apache", "php", "mysql"), entry("one", "apache"),
                 entry("two", "apache", "php", count=2), entry("again", "php", "apache"),
                 entry("full", "mail", filesets=[str(large)]))
    planned = command("launch", "--batch", file, "--dry-run", "-f", "json").json
    sources = {step["request"]: step["from"] for step in planned}
    assert sources == {"one": "mini", "two": "request 2: one", "three": "request 3: two",
                       "full": "mini"}
    done = command("launch", "--batch", file, "-f", "json", timeout=600)
    assert done.status == 30, done.err
    assert done.err.count("no room in /") == 1
    rows = {row["name"]: row for row in json.loads(done.out)}
    assert set(rows) == {"one", "two-1", "two-2", "three", "again"}
    assert {name: row["candidate"] for name, row in rows.items()} == {
        "one": "mini", "two-1": "mini+apache", "two-2": "mini+apache",
        "three": "mini+apache+php", "again": "mini+apache+php"}
    assert rows["again"]["match"] == "exact"
    # A child has only what its parent lacks injected.
    for name in ("one", "two-1", "three"):
        assert bootgold.BULK <= rows[name]["injected"] < 2 * bootgold.BULK
    with opened(boot_store) as application:
        servers = {server.name: server for server in application.servers.list()}
        assert bootgold.serves(application, servers["three"]) == ("apache", "mysql", "php")
        assert bootgold.serves(application, servers["two-2"]) == ("apache", "php")
    history = command("plan", "--history", "-f", "json").json["history"]
    assert {(row["request"], row["match"]) for row in history} >= {
        ("mini+apache", "base"), ("mini+apache+php+mysql", "subset")}
    assert all(row["ratio"] > 0 for row in history if row["match"] != "exact")


@pytest.mark.accept
def test_what_was_to_be_made_from_one_that_fails_is_made_from_another(
        command: Command, boot_store: Path, tmp_path: Path) -> None:
    """Its name is taken, so that it fails once its turn comes."""
    assert command(*bootgold.launch("wiki", name="one")).status == 0
    file = batch(tmp_path, entry("two", "apache", "php"), entry("one", "apache"))
    [first, second] = command("launch", "--batch", file, "--dry-run", "-f", "json").json
    assert (first["request"], second["from"]) == ("one", "request 2: one")
    done = command("launch", "--batch", file, "-f", "json", timeout=600)
    assert done.status == 11, done.err
    [row] = json.loads(done.out)
    assert row["name"] == "two"
    with opened(boot_store) as application:
        assert bootgold.serves(application, application.servers.show("two")) == ("apache", "php")
    assert state(boot_store).findings == ()


@pytest.mark.accept
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_told_to_end(command: Command, boot_store: Path, tmp_path: Path, number: int) -> None:
    """With two appliances running."""
    before = state(boot_store)
    file = batch(tmp_path, entry("one", "apache"), entry("two", "mysql"))
    with (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen(
            command.words("launch", "--batch", file, "--progress", "json"), stderr=err,
            stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env=command.environment(),
            start_new_session=True)
    end = time.monotonic() + 120
    while (tmp_path / "err").read_text().count('"inject"') < 1:
        assert process.poll() is None and time.monotonic() < end, (tmp_path / "err").read_text()
        time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(60) == (-number if number == signal.SIGKILL else 128 + number)
    assert "Traceback" not in (tmp_path / "err").read_text()
    end = time.monotonic() + 60
    while command.processes():
        assert time.monotonic() < end
    assert state(boot_store) == before


# -- the demonstration's combinations ---------------------------------------------------

LAMP = ("apache", "mysql", "php")
COMBINATIONS = (("apache", "php"), ("apache", "php"), ("apache", "php", "mysql"), ("apache",),
                ("mysql",), ("mysql", "php"))


@pytest.fixture(scope="module")
def lamp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    tars = gold_machines.build_steps(gold_machines.CACHE, gold_machines.LAMP)
    disks = gold_machines.machine()
    application = Application(tmp_path_factory.mktemp("lamp") / "store")
    application.images.capture("lamp", Gold(
        disk=disks["base"], steps=tuple((name, tars[name]) for name in LAMP)))
    yield application
    for server in application.servers.list():
        application.servers.delete(server.id)
    application.store.close()


def singly(store: Path, tmp_path: Path) -> list[float]:
    """Seconds of each assembly when the requests come one by one and none knows
    of another: each has a copy of the store. The servers run on until all have
    been started, as those of a batch do."""
    seconds, commands = [], []
    for number, parts in enumerate(COMBINATIONS):
        copy = tmp_path / f"store {number}"
        subprocess.run(["cp", "-a", store, copy], check=True)
        commands.append(Command(copy))
        [row] = commands[-1]("launch", "lamp", *(word for part in parts
                                                 for word in ("--part", part)),
                             "--publish", "assembled", "-f", "json", timeout=1800).json
        assert row["match"] != "exact"
        seconds.append(row["assembly"])
    for command in commands:
        [server] = command("server", "list", "-f", "json").json
        assert command("server", "delete", server["id"]).status == 0
        shutil.rmtree(command.store)
    return seconds


@pytest.mark.accept
def test_the_demonstration_as_one_batch(lamp: Application, tmp_path: Path,
                                        record_property: Callable[[str, Any], None]) -> None:
    alone = singly(lamp.path, tmp_path)
    command = Command(lamp.path)
    file = batch(tmp_path, *({"composite": "lamp", "parts": parts} for parts in COMBINATIONS))
    planned = command("launch", "--batch", file, "--dry-run", "--long", "-f", "json").json
    assert len(planned) == len(set(COMBINATIONS))
    rows = command("launch", "--batch", file, "--publish", "assembled", "-f", "json",
                   timeout=1800).json
    assert len(rows) == len(COMBINATIONS)
    by_parts = {tuple(row["request"]): row for row in rows if row["match"] != "exact"}
    for step in planned:
        row = by_parts[tuple(COMBINATIONS[int(step["requests"][0])])]
        assert row["injected"] == step["inject"]
        assert row["predicted"] == pytest.approx(step["cost"])
    children = [step for step in planned if step["from"].startswith("request ")]
    assert children
    # Each child from its parent's disk: only what the parent lacks.
    assert all(step["cost"] < step["alone"] for step in children)
    together = sum(row["assembly"] for row in rows)
    assert together <= sum(alone)
    record_property("assembly seconds, one by one", f"{sum(alone):.1f}")
    record_property("assembly seconds, as a batch", f"{together:.1f}")
    for row in rows:
        record_property("+".join(row["request"]) + (", exact" if row["match"] == "exact" else ""),
                        f"from {row['candidate']}, {row['injected'] / 1e6:.0f} MB injected, "
                        f"predicted {row['predicted']:.1f} s, took {row['assembly']:.1f} s")

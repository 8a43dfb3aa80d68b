"""The local store between processes: killed, contended, full.

The same file is the child: ``python test_store.py MODE STORE ARGUMENTS``.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import Base, Composite, Mount, PartRef, System
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import SOFTWARE, Layer, Part, PartManifest
from splitimage_driver.model.server import Server
from splitimage_driver.store.local import LocalStore

MOUNTS = (Mount("/dev/sda1", "/", "ext4"),)


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory where that can be: a killed process loses no more there than
    on a disk, and the store syncs each step."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**27:
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            yield Path(folder)
    else:
        yield tmp_path


def _store(path: Path, *, max_count: int = 0, max_parallel: int = 1, **changed: Any) -> LocalStore:
    options = {"lock_timeout": 60.0, "grace": 0, "minimum_free": 0} | changed
    return LocalStore(path, types.SimpleNamespace(**options), max_parallel=max_parallel,
                      retention=types.SimpleNamespace(max_age=0, max_count=max_count, max_bytes=0))


def _object(store: LocalStore, content: bytes) -> str:
    with store.scratch() as folder:
        (folder / "file").write_bytes(content)
        return store.adopt(folder / "file")


def _entries(number: int) -> tuple[FileEntry, ...]:
    return (FileEntry(f"file{number}".encode(), "f", 0o644),)


def _part(store: LocalStore, number: int, owner: str) -> Part:
    manifest = PartManifest((Layer(entries=_entries(number)),))
    blob = _object(store, b"blob %d" % number * 1000)
    return store.add_part(Part(id=manifest.digest, name=f"part{number}", kind=SOFTWARE, blob=blob,
                               blob_size=1, size=1, files=1, owner=owner, created=1.0), manifest)


def _composite(store: LocalStore, name: str, number: int, owner: str, *parts: Part) -> Composite:
    base = Base(_object(store, b"base %d" % number * 1000), 1, 2**30,
                store.put_manifest(Manifest(_entries(number))), MOUNTS)
    composite = Composite(
        name=name, id=str(uuid.uuid4()), owner=owner, created=1.0, base=base, restore="",
        system=System("debian", "12", "Debian 12", "x86_64"),
        parts={part.name: PartRef(id=part.id, kind=part.kind) for part in parts})
    store.save_composite(composite)
    return composite


def _image(store: LocalStore, composite: Composite, number: int, used: float = 1.0) -> Image:
    return store.add_image(Image(
        id=str(uuid.uuid4()), name=f"{composite.name}+{number}", composite=composite.id, parts=(),
        recipe=f"{composite.id} {number}", disk=_object(store, b"disk %d" % number * 1000),
        disk_size=6000, virtual_size=2**30, manifest=store.put_manifest(Manifest(_entries(number))),
        mounts=MOUNTS, owner=composite.owner, created=1.0, last_used=used))


def _server(store: LocalStore, image: Image) -> Server:
    name = uuid.uuid4().hex[:8]
    server = Server(id=name, name=name, composite=image.composite, parts=(), image=image.id,
                    disk=image.disk, directory=str(store.server_directory(name)),
                    owner=image.owner, created=1.0)
    store.save_server(server)
    Path(server.directory).mkdir()
    return server


def _whole_life(store: LocalStore, owner: str, chosen: random.Random) -> None:
    """Every kind of record made and deleted again; the contents come from so
    few that processes meet in them."""
    def number() -> int:
        return chosen.randrange(4)

    store.record("launch", {"owner": owner})
    with store.turn(owner), store.lock(owner):
        part = _part(store, number(), owner)
        composite = _composite(store, owner, number(), owner, part)
        image = _image(store, composite, number())
        _image(store, composite, 5)
        server = _server(store, image)
    store.verify(image.disk)
    store.manifest(composite.base.manifest)
    store.delete_server(server.id)
    store.prune_images(owner=owner, max_count=1)
    for image in store.images(owner=owner):
        store.delete_image(image.id)
    store.delete_composite(composite.id)
    store.delete_part(part.id, owner=owner)


def _clean_up(store: LocalStore, owner: str) -> None:
    """What a user does about the records that a killed command had made."""
    for server in store.servers():
        if server.owner == owner:
            store.delete_server(server.id)
    for image in store.images(owner=owner):
        store.delete_image(image.id)
    for composite in store.composites():
        if composite.owner == owner:
            store.delete_composite(composite.id, parts=True)
    for part in store.parts(owner=owner):
        store.delete_part(part.id, owner=owner)


# -- children -----------------------------------------------------------------

def _child_churn(path: Path, owner: str, seed: str, rounds: str) -> None:
    """rounds 0: until killed."""
    store, chosen = _store(path), random.Random(int(seed))
    print("ready", flush=True)
    count = 0
    while not int(rounds) or count < int(rounds):
        _whole_life(store, owner, chosen)
        count += 1


def _child_step(path: Path, step: str) -> None:
    """Dies right before the step-th change of the file system."""
    left = int(step)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.utime") or (
                event == "open" and arguments[2] & (os.O_CREAT | os.O_WRONLY)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    store = _store(path)
    sys.addaudithook(hook)
    _whole_life(store, "step", random.Random(1))


def _child_hold(path: Path, name: str) -> None:
    with _store(path).lock(name), _store(path).scratch():
        print("held", flush=True)
        time.sleep(600)


def _child_count(path: Path, file: str, rounds: str) -> None:
    store = _store(path)
    for _ in range(int(rounds)):
        with store.lock("counter"):
            count = int(Path(file).read_text())
            time.sleep(0.001)
            Path(file).write_text(str(count + 1))


def _child_turn(path: Path, subject: str, log: str, go: str) -> None:
    with _store(path).turn(subject), open(log, "a") as stream:
        stream.write(f"{subject} begins\n")
        stream.flush()
        while not Path(go).exists():
            time.sleep(0.01)
        stream.write(f"{subject} ends\n")


CHILDREN: dict[str, Callable[..., None]] = {
    "churn": _child_churn, "step": _child_step, "hold": _child_hold, "count": _child_count,
    "turn": _child_turn}


@contextlib.contextmanager
def _child(mode: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    with subprocess.Popen([sys.executable, __file__, mode, *map(str, arguments)],
                          stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _until(condition: Callable[[], object]) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen in 30 s")


def _files(path: Path) -> list[Path]:
    return [file for where in ("objects", "manifests", "tmp", "servers")
            for file in (path / where).rglob("*") if file.is_file()]


# -- crashes ------------------------------------------------------------------

def _survives(path: Path, owner: str) -> None:
    """After a crash: only harmless findings, the same again works, and
    nothing is left once it was repaired."""
    with contextlib.closing(_store(path)) as store:
        # Opening it has removed all but the directory of a deleted server.
        assert {finding.kind for finding in store.check()} <= {"leftover"}
        assert store.queue() == []
        _clean_up(store, owner)
        _whole_life(store, owner, random.Random(1))
        assert all(finding.repaired for finding in store.check(repair=True))
        assert list(store.check()) == []


@pytest.mark.must_show("main-job", 6)
def test_killed_at_random_moments(tmp_path: Path) -> None:
    path, chosen = tmp_path / "store", random.Random(20)
    for seed in range(30):
        with _child("churn", path, "killed", seed, 0) as process:
            assert _first_line(process) == "ready"
            time.sleep(chosen.uniform(0, 0.4))
            process.kill()
        _survives(path, "killed")
    assert _files(path) == []


@pytest.mark.must_show("main-job", 6)
def test_killed_at_every_change_of_the_file_system(tmp_path: Path) -> None:
    path = tmp_path / "store"
    _store(path).close()
    died = step = 0
    while True:
        step += 1
        with _child("step", path, step) as process:
            status = process.wait(60)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        died += 1
        _survives(path, "step")
    assert died > 50
    assert _files(path) == []


# -- contention ---------------------------------------------------------------

def test_processes_that_share_contents_do_not_lose_any(tmp_path: Path) -> None:
    path = tmp_path / "store"
    _store(path).close()
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(_child("churn", path, f"worker{seed}", seed, 12))
                   for seed in range(3)]
        # Meanwhile a collector without any grace: leases alone protect.
        store = stack.enter_context(contextlib.closing(_store(path)))
        checks = 0
        while any(worker.poll() is None for worker in workers):
            assert [f for f in store.check(repair=True) if not f.harmless] == []
            checks += 1
        assert [worker.returncode for worker in workers] == [0, 0, 0]
        assert checks > 1
        assert len(store.history(limit=1000)) == 36
        list(store.check(repair=True))
        assert list(store.check()) == [] and _files(path) == []


def test_a_lock_is_freed_by_its_holders_death(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with _child("hold", path, "recipe") as holder:
        assert _first_line(holder) == "held"
        with contextlib.closing(_store(path, lock_timeout=0.2)) as store:
            with (pytest.raises(exceptions.LockTimeout, match="recipe"),
                  store.lock("recipe")):
                pass
            assert list(store.check(repair=True)) == []  # the living keep their scratch
            holder.kill()
            holder.wait()
            with store.lock("recipe"):
                pass
            assert [finding.kind for finding in store.check(repair=True)] == ["leftover"]


def test_a_lock_excludes(tmp_path: Path) -> None:
    path, counter = tmp_path / "store", tmp_path / "counter"
    counter.write_text("0")
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(_child("count", path, counter, 40)) for _ in range(3)]
        assert [worker.wait(120) for worker in workers] == [0, 0, 0]
    assert counter.read_text() == "120"


def test_turns_of_processes_come_in_order_of_arrival(tmp_path: Path) -> None:
    path, log, go = tmp_path / "store", tmp_path / "log", tmp_path / "go"
    names = ["a", "b", "c", "d", "e", "f"]
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(_store(path)))
        workers = {}
        for name in names:
            workers[name] = stack.enter_context(_child("turn", path, name, log, go))
            _until(lambda name=name: any(i.subject == name for i in store.queue()))  # type: ignore[misc]
        assert [item.subject for item in store.queue()] == names
        assert {item.pid for item in store.queue()} == {w.pid for w in workers.values()}
        store.cancel(store.queue()[3].id)
        _until(lambda: workers["d"].poll())
        workers["a"].kill()  # while it runs
        workers["c"].kill()  # while it waits
        workers["a"].wait()
        workers["c"].wait()
        _until(lambda: "b begins" in log.read_text())
        assert [item.subject for item in store.queue()] == ["b", "e", "f"]
        go.touch()
        for name in ("b", "e", "f"):
            assert workers[name].wait(60) == 0
        assert store.queue() == []
    assert log.read_text().split("\n")[1:-1] == [
        f"{name} {what}" for name in ("b", "e", "f") for what in ("begins", "ends")]


# -- limits -------------------------------------------------------------------

@pytest.mark.must_show("main-job", 6)
def test_a_hundred_images_with_a_limit_of_ten(tmp_path: Path) -> None:
    with contextlib.closing(_store(tmp_path / "store", max_count=10)) as store:
        composite = _composite(store, "lamp", 0, "default")
        servers = []
        for number in range(100):
            image = _image(store, composite, number, used=float(number))
            if number in (3, 20, 50):
                servers.append(_server(store, image))
        left = store.images()
        assert len(left) == 10
        assert {image.recipe.split()[1] for image in left} == {
            "3", "20", "50", "93", "94", "95", "96", "97", "98", "99"}
        for server in servers:
            store.verify(server.disk)
        assert list(store.check()) == []
        assert sum(store.is_local(image.disk) for image in left) == 10
        assert len([f for f in _files(Path(store.location)) if f.parts[-3] == "objects"]) == 11


@contextlib.contextmanager
def _small_disk(path: Path, size: str) -> Iterator[Path]:
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)],
        capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def _fill(file: Path) -> None:
    """To the last byte."""
    with open(file, "wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"x" * 512)


def _raises_full(call: Callable[[], object]) -> exceptions.StoreFull:
    with pytest.raises(exceptions.StoreFull) as caught:
        call()
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.must_show("main-job", 8)
def test_a_full_store(tmp_path: Path) -> None:
    with _small_disk(tmp_path / "disk", "2m") as disk:
        path = disk / "store"
        with contextlib.closing(_store(path)) as store:
            composite = _composite(store, "lamp", 0, "default")

            def adopt_many() -> None:
                for number in range(1000):
                    _object(store, os.urandom(100_000 + number))

            def record_many() -> None:
                for _ in range(1000):
                    store.record("launch", {"x": "y" * 2000})

            error = _raises_full(adopt_many)
            assert error.fields["path"] == str(path) and error.fields["available"] < 2**21
            _fill(disk / "filler")
            for call in (lambda: _object(store, b"x"), lambda: _image(store, composite, 1),
                         record_many):
                _raises_full(call)
            assert store.composite("lamp") == composite
        _fill(disk / "filler2")  # what closing the database has freed
        for place in (path, disk / "other"):
            _raises_full(lambda place=place: _store(place))  # type: ignore[misc]
        os.unlink(disk / "filler")
        os.unlink(disk / "filler2")
        with contextlib.closing(_store(path)) as store:
            # Nothing of what failed is left, and there is room again.
            assert list(store.check()) == []
            assert len(_files(path)) == 2
            _whole_life(store, "again", random.Random(1))
            assert list(store.check()) == []
        with contextlib.closing(_store(disk / "other")) as store:
            assert list(store.check()) == []


@pytest.mark.must_show("main-job", 8)
def test_random_damage_to_the_database_is_always_one_line(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with contextlib.closing(_store(path)) as store:
        composite = _composite(store, "lamp", 0, "default", _part(store, 1, "default"))
        for number in range(5):
            _image(store, composite, number)
    database = path / "splitimage.db"
    good = database.read_bytes()
    chosen, corrupt = random.Random(5), 0
    for _ in range(60):
        bad = bytearray(good)
        for _ in range(chosen.choice((1, 4, 64))):
            start = chosen.randrange(len(bad))
            bad[start:start + 50] = chosen.randbytes(min(50, len(bad) - start))
        for suffix in ("-wal", "-shm"):
            database.with_name(database.name + suffix).unlink(missing_ok=True)
        database.write_bytes(bad)
        try:
            with contextlib.closing(_store(path)) as store:
                harmful = [f for f in store.check(repair=True) if not f.harmless]
                corrupt += bool(harmful)
                store.images()
                store.parts()
                store.history()
                _whole_life(store, "after", random.Random(1))
        except exceptions.SplitImageError as error:
            assert "\n" not in str(error)
            corrupt += 1
    assert corrupt > 20


if __name__ == "__main__":
    CHILDREN[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])

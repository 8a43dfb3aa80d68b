"""The command itself: bad input, each with one line, a stable exit code and
nothing left behind; and a few ways through it from end to end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from splitimage_driver.application import Application
from tests.functional import smallgold
from tests.functional.command import Command, Done, refused

bad_input = pytest.mark.must_show("main-job", 8)
long = pytest.mark.accept
_MIB = 1 << 20


@pytest.fixture
def cli(fresh_store: Path) -> Command:
    return Command(fresh_store)


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


def clean(cli: Command, done: Done, code: int, *words: str) -> None:
    """Refused, with nothing left behind."""
    refused(done, code, *words)
    assert cli.leftovers() == []


# -- disks --------------------------------------------------------------------------

def not_a_disk(gold: smallgold.Gold, place: Path) -> Path:
    path = place / "letter.qcow2"
    path.write_text("Dear Sir or Madam,\n" * 1000)
    return path


def cut_off_raw(gold: smallgold.Gold, place: Path) -> Path:
    path = place / "cut.raw"
    with gold.disk.open("rb") as whole:
        path.write_bytes(whole.read(20 * _MIB))
    return path


def cut_off_qcow2(gold: smallgold.Gold, place: Path) -> Path:
    path = place / "cut.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", gold.disk, path)
    os.truncate(path, path.stat().st_size // 2)
    return path


def with_backing_file(gold: smallgold.Gold, place: Path) -> Path:
    path = place / "overlay.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", gold.disk, path)
    return path


def with_data_file(gold: smallgold.Gold, place: Path) -> Path:
    path = place / "outside.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={place / 'data.raw'}", path, "64M")
    return path


def a_directory(gold: smallgold.Gold, place: Path) -> Path:
    return place


def not_there(gold: smallgold.Gold, place: Path) -> Path:
    return place / "absent.qcow2"


@bad_input
@pytest.mark.parametrize(("make", "code", "words"), [
    (not_a_disk, 20, "neither a partition table nor a file system"),
    (cut_off_raw, 20, "cut off"),
    (cut_off_qcow2, 20, "cut off"),
    (with_backing_file, 21, "backing file"),
    (with_data_file, 21, "external data file"),
    (a_directory, 20, "not a regular file"),
    (not_there, 20, "No such file"),
], ids=lambda value: value.__name__ if callable(value) else "")
def test_a_bad_disk_is_refused(make: Callable[[smallgold.Gold, Path], Path], code: int, words: str,
                               small_gold: smallgold.Gold, cli: Command, tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    disk = make(small_gold, place)
    clean(cli, cli("inspect", disk), code, str(disk), words)
    refused(cli("capture", "another", "--step", f"base={disk}", "--step",
                f"web={small_gold.tars['web']}"), code, str(disk), words)
    clean(cli, cli("capture", "another", "--disk", disk, "--software", "web=webd"), code,
          str(disk), words)
    assert [c["name"] for c in cli("composite", "list", "-f", "json").json] == ["small"]


@bad_input
@long
def test_a_disk_without_a_system_is_refused(cli: Command, tmp_path: Path) -> None:
    disk = smallgold.empty_disk(tmp_path)
    clean(cli, cli("inspect", disk), 22, str(disk), "no operating system")
    clean(cli, cli("capture", "another", "--disk", disk, "--software", "web=webd"), 22, str(disk))


# -- parts --------------------------------------------------------------------------------

@bad_input
@pytest.mark.parametrize("command", [("plan",), ("assemble",), ("launch",)])
def test_an_unknown_part_is_refused(command: tuple[str, ...], cli: Command) -> None:
    clean(cli, cli(*command, "small", "--part", "web", "--part", "nginx"), 13, "small", "nginx",
          "db, php, web")


@bad_input
def test_a_part_that_requires_an_absent_one_is_refused(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    part = cli("part", "create", "page", "--from", tmp_path / "page", "-f", "json").json["id"]
    clean(cli, cli("composite", "add-part", "small", part, "--requires", "nginx"), 14, "page",
          "nginx")
    clean(cli, cli("composite", "remove-part", "small", "dep.db.web"), 12, "db, web")

    application = Application(cli.store)
    composite = application.store.composite("small")
    application.store.save_composite(msgspec.structs.replace(
        composite, parts={n: r for n, r in composite.parts.items() if n != "dep.db.web"}),
        replace=True)
    application.store.close()
    clean(cli, cli("assemble", "small", "--part", "web", "-o", tmp_path / "out"), 14, "web",
          "dep.db.web")
    assert not (tmp_path / "out").exists()


# -- file sets --------------------------------------------------------------------------------

def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "",
           mode: int = 0o644) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.mode = kind, target, mode
    found.size = 2 if kind == tarfile.REGTYPE else 0
    return found


@bad_input
@pytest.mark.parametrize(("members", "code", "words"), [
    ([member("srv/../../etc/passwd")], 23, ("..", "etc/passwd")),
    ([member("/etc/passwd")], 23, ("absolute",)),
    ([member("srv/out", tarfile.SYMTYPE, "/etc"), member("srv/out/passwd")], 23,
     ("/srv/out/passwd", "not a directory")),
    ([member("srv/out", tarfile.SYMTYPE, "../../.."), member("srv/out/x")], 23, ("/srv/out",)),
    ([member("srv/hard", tarfile.LNKTYPE, "etc/shadow")], 23, ("hard",)),
    ([member("srv/tool", mode=0o4755)], 24, ("/srv/tool", "set-uid")),
    ([member("srv/tool", mode=0o2755)], 24, ("/srv/tool", "set-gid")),
    ([member("srv/disk", tarfile.BLKTYPE)], 24, ("/srv/disk", "device")),
], ids=["dot-dot", "absolute", "through a link", "link out", "hard link out", "set-uid", "set-gid",
        "device"])
def test_a_dangerous_file_set_is_refused(members: list[tarfile.TarInfo], code: int,
                                         words: tuple[str, ...], cli: Command,
                                         tmp_path: Path) -> None:
    tar = tmp_path / "set.tar"
    with tarfile.open(tar, "w") as archive:
        for one in members:
            archive.addfile(one, io.BytesIO(b"x\n"))
    clean(cli, cli("part", "create", "set", "--from", tar), code, str(tar), *words)
    clean(cli, cli("launch", "small", "--part", "web", "--fileset", tar), code, str(tar), *words)
    assert cli("part", "list", "--all", "-f", "value", "-c", "kind").out.count("fileset") == 0
    assert cli("server", "list", "-f", "json").json == []


@bad_input
def test_a_set_uid_file_is_taken_where_it_is_allowed(cli: Command, tmp_path: Path) -> None:
    tar = tmp_path / "set.tar"
    with tarfile.open(tar, "w") as archive:
        archive.addfile(member("usr/bin/tool", mode=0o4755), io.BytesIO(b"x\n"))
    assert cli("part", "create", "tool", "--from", tar, "--allow-setuid").status == 0
    files = cli("part", "show", "tool", "--files", "-f", "json").json["contents"]
    assert {f["path"]: f["mode"] for f in files if f["what"] == "file"} == {"/usr/bin/tool": "4755"}


# -- room -----------------------------------------------------------------------------------

@bad_input
@long
@pytest.mark.parametrize("unit", ["bytes", "inodes"])
def test_a_full_disk_in_the_guest_is_refused(unit: str, cli: Command, tmp_path: Path) -> None:
    """Before anything is written: the copy's room is looked at first."""
    place = tmp_path / "srv"
    place.mkdir()
    if unit == "bytes":
        (place / "large").write_bytes(b"x" * 80 * _MIB)
    else:
        for number in range(2500):
            (place / str(number)).touch()
    clean(cli, cli("assemble", "small", "--part", "web", "--fileset", tmp_path / "srv",
                   "-o", tmp_path / "out"), 30, "no room in /", unit)
    assert not (tmp_path / "out").exists()
    assert cli("image", "list", "-f", "json").json == []


@contextlib.contextmanager
def tmpfs(place: Path, size: int) -> Iterator[Path]:
    """A file system of ``size`` bytes."""
    if os.geteuid():
        pytest.skip("mounting needs root")
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def roomless(tmp_path: Path) -> Path:
    """A configuration that uses all the room there is."""
    path = tmp_path / "splitimage.conf"
    path.write_text("[store]\nminimum_free = 0\n")
    return path


def listed(cli: Command) -> list[str]:
    return [cli(*words, "-f", "json").out for words in (
        ("composite", "list"), ("part", "list", "--all"), ("image", "list"), ("server", "list"))]


@bad_input
def test_a_full_store_refuses_at_once(small_store: Path, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", 16 * _MIB) as place:
        cli = Command(Path(shutil.copytree(small_store, place / "store")))
        before = listed(cli)
        clean(cli, cli("assemble", "small", "--part", "web"), 31, str(cli.store))
        clean(cli, cli("launch", "small", "--part", "web"), 31, str(cli.store))
        assert listed(cli) == before


@bad_input
def test_a_store_that_fills_up_with_a_part_is_as_before(
        small_store: Path, roomless: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "noise").write_bytes(os.urandom(12 * _MIB))
    # The spooled copy fits, the blob beside it does not; or neither does.
    for size in (8, 20):
        with tmpfs(tmp_path / f"small{size}", size * _MIB) as place:
            cli = Command(Path(shutil.copytree(small_store, place / "store")),
                          "--config-file", roomless)
            before = listed(cli)
            clean(cli, cli("part", "create", "set", "--from", tmp_path / "set"), 31,
                  str(cli.store))
            assert listed(cli) == before


@bad_input
@long
def test_a_store_that_fills_up_during_an_assembly_is_as_before(
        small_store: Path, roomless: Path, tmp_path: Path) -> None:
    """The appliance's writes fail then; none may be lost unnoticed."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "noise").write_bytes(os.urandom(24 * _MIB))
    with tmpfs(tmp_path / "small", 64 * _MIB) as place:
        cli = Command(Path(shutil.copytree(small_store, place / "store")),
                      "--config-file", roomless)
        part = cli("part", "create", "set", "--from", tmp_path / "set", "-f", "json").json["id"]
        subprocess.run(["mount", "-o", f"remount,size={40 * _MIB}", place], check=True)
        before = listed(cli)
        clean(cli, cli("assemble", "small", "--part", "web", "--fileset", part), 31,
              str(cli.store))
        assert listed(cli) == before
        subprocess.run(["mount", "-o", f"remount,size={128 * _MIB}", place], check=True)
        done = cli("assemble", "small", "--part", "web", "--fileset", part, "-f", "json").json
        assert done["match"] == "base"


# -- damage --------------------------------------------------------------------------------------

def damage(path: Path, place: int) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 0xFF]))


def stored(cli: Command, digest: str) -> Path:
    return cli.store / "objects" / digest[:2] / digest


def damaged(cli: Command) -> list[str]:
    """What ``store check`` says of a damaged store; leftovers are none."""
    assert list((cli.store / "tmp").iterdir()) == []
    assert cli.processes() == []
    done = cli("store", "check", "-f", "json")
    assert done.status == 25, done.err
    found = json.loads(done.out)
    assert {f["kind"] for f in found} == {"damaged"}
    return [f["subject"] for f in found]


@bad_input
def test_a_disk_that_does_not_match_its_digest_is_refused(cli: Command, tmp_path: Path) -> None:
    digest = cli("composite", "show", "small", "-f", "json").json["base"]
    damage(stored(cli, digest), 300_000)
    refused(cli("assemble", "small", "--part", "web", "-o", tmp_path / "out"), 25, digest)
    refused(cli("launch", "small", "--part", "web"), 25, digest)
    assert damaged(cli) == [f"objects/{digest[:2]}/{digest}"]
    assert cli("server", "list", "-f", "json").json == []
    assert not (tmp_path / "out").exists()


@bad_input
@long
@pytest.mark.parametrize("place", [2, 200], ids=["superblock", "data"])
def test_a_blob_that_does_not_match_its_digest_is_refused(place: int, cli: Command,
                                                          tmp_path: Path) -> None:
    digest = cli("part", "show", "db", "-f", "json").json["blob"]
    damage(stored(cli, digest), place)
    refused(cli("assemble", "small", "--part", "db", "-o", tmp_path / "out"), 25, "digest")
    assert damaged(cli) == [f"objects/{digest[:2]}/{digest}"]
    assert not (tmp_path / "out").exists()


@bad_input
def test_a_manifest_that_does_not_match_its_digest_is_refused(cli: Command) -> None:
    digest = cli("part", "show", "web", "-f", "json").json["id"]
    [path] = (cli.store / "manifests").rglob(f"{digest}*")
    damage(path, path.stat().st_size // 2)
    refused(cli("plan", "small", "--part", "web"), 25, digest)
    assert damaged(cli) == [str(path.relative_to(cli.store))]


@bad_input
@pytest.mark.parametrize("words", [
    ("composite", "list"), ("plan", "small", "--part", "web"), ("launch", "small"),
    ("server", "list"), ("store", "check"),
], ids=" ".join)
@pytest.mark.parametrize("how", ["overwritten", "cut off", "empty"])
def test_a_corrupt_database_is_refused(how: str, words: tuple[str, ...], cli: Command) -> None:
    database = cli.store / "splitimage.db"
    if how == "overwritten":
        with database.open("r+b") as file:
            file.write(b"SQLite is not what this is\n" * 20)
    else:
        os.truncate(database, 5000 if how == "cut off" else 0)
    before = database.read_bytes()
    refused(cli(*words), 32, str(database))
    assert database.read_bytes() == before
    assert list((cli.store / "tmp").iterdir()) == []
    assert cli.processes() == []


# -- this host ------------------------------------------------------------------------------------

@bad_input
def test_an_unreadable_host_kernel_is_told(cli: Command, small_gold: smallgold.Gold,
                                           tmp_path: Path) -> None:
    env = {"SUPERMIN_KERNEL": str(tmp_path / "vmlinuz"), "LIBGUESTFS_PATH": ""}
    for words in (("inspect", small_gold.disk), ("assemble", "small", "--part", "web")):
        clean(cli, cli(*words, env=env), 42, str(tmp_path / "vmlinuz"))
    done = cli("doctor", "-f", "json", env=env)
    assert done.status == 1
    [check] = [c for c in json.loads(done.out) if c["check"] == "appliance kernel"]
    assert check["state"] == "FAILED"
    assert check["what_to_do"]


@bad_input
def test_a_missing_qemu_is_told(cli: Command, small_gold: smallgold.Gold, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    env = {"PATH": str(tmp_path / "bin")}
    image = tmp_path / "gold.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", small_gold.disk, image)
    clean(cli, cli("inspect", image, env=env), 40, "qemu-img")
    clean(cli, cli("inspect", small_gold.disk, env=env), 40, "qemu-system-x86_64")
    clean(cli, cli("launch", "small", "--part", "web", env=env), 40, "qemu-system-x86_64")
    assert cli("server", "list", "-f", "json").json == []
    done = cli("doctor", "-f", "json", env=env)
    assert done.status == 1
    assert {c["check"] for c in json.loads(done.out) if c["state"] == "FAILED"} >= {
        "qemu-system-x86_64", "qemu-img"}


@bad_input
def test_an_unusable_store_is_told(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(Command(tmp_path / "file")("composite", "list"), 15, str(tmp_path / "file"))
    bad = tmp_path / "bad.conf"
    bad.write_text("[store]\nlock_timeout = soon\n")
    refused(Command(cli.store, "--config-file", bad)("composite", "list"), 15, "lock_timeout")
    refused(Command(cli.store, "--config-file", tmp_path / "no.conf")("composite", "list"), 15,
            "no.conf")


# -- from end to end ----------------------------------------------------------------------------

def test_programs_and_people_read_the_same_composite(small_store: Path) -> None:
    cli = Command(small_store)
    found = cli("composite", "show", "small", "-f", "json").json
    assert [p["name"] for p in found["parts"]] == list(smallgold.PARTS)
    assert found["dependency_parts"] == 1
    assert found["disk_size"] == smallgold.DISK_SIZE
    assert found["conflicts"] == []
    everything = cli("composite", "show", "small", "--all", "-f", "json").json
    packages = {p["name"]: p["packages"] for p in everything["parts"]}
    assert packages["dep.db.web"] == [f"{smallgold.SHARED}=1.0-1"]
    shown = cli("composite", "show", "small").out
    assert "64.0 MiB" in shown
    assert "1 dependency parts come along" in shown


@long
def test_an_assembly_is_published_and_met_again(cli: Command, tmp_path: Path) -> None:
    words = ("assemble", "small", "--part", "web", "--part", "php", "-f", "json", "-o")
    first = cli("--progress", "json", *words, tmp_path / "one.qcow2")
    events = [json.loads(line) for line in first.err.splitlines()]
    assert {"appliance", "inject", "publish"} <= {e["operation"] for e in events}
    assert all(e["done"] for e in {(e["operation"], e["subject"]): e for e in events}.values())
    assert first.json["match"] == "base"
    [image] = cli("image", "list", "-f", "json").json
    assert image["name"] == "small+php+web"

    again = cli(*words, tmp_path / "two.qcow2").json
    assert again["match"] == "exact"
    assert again["image_id"] == image["id"] == first.json["image_id"]
    assert (tmp_path / "two.qcow2").read_bytes() == (tmp_path / "one.qcow2").read_bytes()
    refused(cli(*words, tmp_path / "two.qcow2"), 11, "two.qcow2")
    overlay = cli(*words, tmp_path / "three.qcow2", "--overlay").json
    assert overlay["match"] == "exact"
    chain = subprocess.run(["qemu-img", "info", "--backing-chain", "--output=json",
                            tmp_path / "three.qcow2"], check=True, capture_output=True)
    assert len(json.loads(chain.stdout)) == 2
    exported = cli("image", "export", image["id"], "-o", tmp_path / "four.raw",
                   "--disk-format", "raw", "-f", "json").json
    assert exported["format"] == "raw"
    assert (tmp_path / "four.raw").stat().st_size == smallgold.DISK_SIZE

    considered = cli("plan", "small", "--part", "web", "--explain", "-f", "json").json
    assert [e["candidate"] for e in considered["considered"]] == ["small+php+web", "small"]
    assert considered["considered"][0]["excess"]["files"] > 0
    assert cli("image", "delete", image["name"]).status == 0
    assert cli("image", "list", "-f", "json").json == []
    assert cli.leftovers() == []


@long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP],
                         ids=lambda n: n.name)
@pytest.mark.parametrize("moment", ["appliance", "inject"])
def test_a_signal_ends_an_assembly_in_good_order(number: signal.Signals, moment: str,
                                                 cli: Command, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "noise").write_bytes(os.urandom(20 * _MIB))
    with subprocess.Popen(
            cli.words("--progress", "json", "assemble", "small", "--part", "web", "--fileset",
                      tmp_path / "set", "-o", tmp_path / "out"),
            env=cli.environment(), stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if json.loads(line)["operation"] == moment:
                break
        time.sleep(0.5)
        running.send_signal(number)
        rest = [line for line in running.stderr if not line.startswith("{")]
        assert running.wait(60) == 128 + number
    assert len(rest) == (1 if number == signal.SIGINT else 0), rest
    assert not (tmp_path / "out").exists()
    assert cli.leftovers() == []
    assert cli("queue", "list", "-f", "json").json == []


def test_a_closed_pipe_is_no_error(small_store: Path) -> None:
    words = Command(small_store).words("part", "show", "web", "--files")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait() == 128 + signal.SIGPIPE


def test_a_full_standard_output_is_an_error(small_store: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(Command(small_store).words("composite", "list"), stdout=full,
                              stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_completion_knows_commands_and_options(small_store: Path) -> None:
    script = Command(small_store)("complete").out
    probe = f"""{script}
_get_comp_words_by_ref() {{ words=(splitimage "${{typed[@]}}"); cur="${{typed[-1]}}"; }}
typed=(composite ""); _splitimage; echo "${{COMPREPLY[@]}}"
typed=(launch --on); _splitimage; echo "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", probe], capture_output=True, text=True, check=True)
    commands, options = done.stdout.splitlines()
    assert {"list", "show", "add-part"} <= set(commands.split())
    assert options.split() == ["--on-conflict"]

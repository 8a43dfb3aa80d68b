"""The packages splitter on an invented finished machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from splitimage_driver import exceptions
from splitimage_driver.capture import clean, pack, packages
from splitimage_driver.capture.gold import Spool
from splitimage_driver.capture.identity import Identity
from splitimage_driver.capture.splitter import Split
from splitimage_driver.model.entry import FILE, FileEntry
from splitimage_driver.model.plan import Target
from tests.unit import machines
from tests.unit.machines import State, base, install, with_account

SOFTWARE: dict[str, tuple[str, ...]] = {
    "apache": ("apache2",), "mysql": ("mariadb",), "php": ("php8.2",)}
PAGER = "var/lib/dpkg/alternatives/pager"


def machine() -> State:
    found = base() | {"boot/vmlinuz": b"kernel", "etc/fstab": b"UUID=1 / ext4",
                      "etc/hostname": b"gold"}
    found = install(found, "util-linux", {"usr/bin/more": b"more"}, priority="required")
    found = install(found, "libz", {"usr/lib/libz": b"z"}, manual=False)
    found = install(found, "apache2", {
        "usr/sbin/apache2": b"a", "etc/apache2/mods/event": b"x", "etc/apache2/mods/prefork": b"x",
        "etc/apache2/conf": b"conf"}, depends=["libz"], listed=["etc/apache2/enabled"])
    found = install(found, "mariadb", {"usr/sbin/mariadbd": b"db"},
                    script="adduser --system mysql")
    found = with_account(found, "mysql", 102)
    found = install(found, "php8.2", {"usr/bin/php8.2": b"p", "etc/apache2/mods/php8.2": b"mod"},
                    depends=["libz"])
    found = install(found, "less", {"usr/bin/less": b"less"})
    found = with_account(found, "person", 1000)
    found |= {
        "etc/apache2/enabled/prefork": "../mods/prefork",
        "etc/apache2/enabled/php8.2": "../mods/php8.2",
        "var/lib/mysql/table": (FileEntry(b"", FILE, 0o600, uid=102, size=4), b"rows"),
        "etc/alternatives/php": "/usr/bin/php8.2", "usr/bin/php": "/etc/alternatives/php",
        "var/lib/dpkg/alternatives/php":
            b"auto\n/usr/bin/php\n\n/usr/bin/php8.2\n82\n\n",
        PAGER: b"auto\n/usr/bin/pager\n\n/bin/more\n50\n/usr/bin/less\n77\n\n",
        "usr/bin/pager": "/etc/alternatives/pager", "etc/alternatives/pager": "/usr/bin/less",
        "opt/secret/token": b"secret", "root/.ssh/id_ed25519": b"secret",
        "home/person/notes": b"mine", "srv/app/code": b"code",
        "etc/ssh/ssh_host_rsa_key": b"key", "var/log/apache2/access.log": b"log",
    }
    return found


class Captured:
    def __init__(self, place: Path, told: State,
                 software: dict[str, tuple[str, ...]]) -> None:
        self.state = machines.state("base", told)
        self.spool = Spool(place / "contents")
        self.split: Split = packages.Packages().split(
            [self.state], software, rest="x-rest", identity=Identity(), spool=self.spool)
        self.draft = self.split.draft
        cleaned = clean.clean(self.split.base, Identity(), generated=self.split.generated)
        self.base = cleaned.manifest
        self.shared = {path: cleaned.generated.get(path, content)
                       for path, content in self.state.shared.items() if path in self.base}
        self.corrected = pack.correct(
            self.draft, self.base, self.state.manifest, [self.state.manifest],
            shared=self.shared, identity=Identity(), ignore=cleaned.first_boot)

    def laid(self, *names: str) -> Target:
        target = machines.laid(self.draft, self.base, [self.state], names, self.spool,
                               self.shared)
        assert target.conflicts == ()
        return target

    def paths(self, *names: str) -> set[str]:
        return {e.path.decode() for e in self.laid(*names).manifest if not e.is_dir}

    def text(self, path: str, *names: str) -> bytes:
        target = self.laid(*names)
        if path.encode() in target.generated:
            return target.generated[path.encode()]
        return self.shared[path.encode()]


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    return Captured(tmp_path_factory.mktemp("x"), machine(), SOFTWARE)


def test_all_parts_give_the_machine(captured: Captured) -> None:
    target = captured.laid("apache", "mysql", "php", "x-rest")
    left = Identity()
    differing = [path for path in {*target.manifest.by_path, *captured.state.manifest.by_path}
                 if path and not (known := target.manifest.get(path)
                                  or captured.state.manifest.by_path[path]).same(
                     captured.state.manifest.get(path)) and not left.excludes(known)]
    assert differing == []
    assert captured.corrected == 0


def test_the_base_has_nothing_of_the_software(captured: Captured) -> None:
    words = ("apache", "mysql", "mariadb", "php", "libz", "secret", "person", "token")
    assert [path for path in captured.paths() if any(word in path for word in words)] == []
    for path, content in captured.shared.items():
        assert not any(word.encode() in content for word in words), path
    assert {"boot/vmlinuz", "etc/fstab", "usr/bin/sh", "usr/bin/more", "usr/bin/less",
            "etc/hostname", "etc/passwd"} <= captured.paths()


def accounts(captured: Captured, *names: str) -> list[bytes]:
    return [line.partition(b":")[0] for line in captured.text("etc/passwd", *names).splitlines()]


def test_accounts(captured: Captured) -> None:
    assert accounts(captured) == [b"root", b"www-data"]
    assert accounts(captured, "mysql") == [b"root", b"www-data", b"mysql"]
    assert accounts(captured, "php") == [b"root", b"www-data"]
    assert accounts(captured, "x-rest") == [b"root", b"www-data", b"person"]


def test_data_goes_to_its_owner_and_what_is_nobodys_to_the_rest(captured: Captured) -> None:
    assert "var/lib/mysql/table" in captured.paths("mysql")
    rest = {e.path.decode() for _, e in captured.draft.entries("x-rest") if not e.is_dir}
    assert rest == {"opt/secret/token", "root/.ssh/id_ed25519", "home/person/notes",
                    "srv/app/code"}


def test_a_packages_files_come_whole(captured: Captured) -> None:
    """Also those in another's directory; the links to them only with that."""
    assert "etc/apache2/mods/php8.2" in captured.paths("php")
    assert "etc/apache2/enabled/php8.2" not in captured.paths("php")
    assert "etc/apache2/enabled/php8.2" in captured.paths("php", "apache")
    assert "etc/apache2/enabled/php8.2" not in captured.paths("apache")


def test_alternatives_follow_the_software(captured: Captured) -> None:
    assert {"etc/alternatives/php", "usr/bin/php"} <= captured.paths("php")
    assert not {"etc/alternatives/php", "usr/bin/php"} & captured.paths("apache")
    link = captured.laid().manifest.by_path[b"etc/alternatives/pager"]
    assert link.target == b"/usr/bin/less"


def test_an_alternative_of_the_software_is_taken_back_in_the_base(tmp_path: Path) -> None:
    told = machine()
    captured = Captured(tmp_path, told, {**SOFTWARE, "pager": ("less",)})
    assert captured.base.by_path[b"etc/alternatives/pager"].target == b"/bin/more"
    assert captured.shared[PAGER.encode()] == b"auto\n/usr/bin/pager\n\n/bin/more\n50\n\n"
    target = captured.laid("pager")
    assert target.manifest.by_path[b"etc/alternatives/pager"].target == b"/usr/bin/less"
    assert target.generated[PAGER.encode()] == told[PAGER]


def test_what_the_system_needs_stays_in_the_base(tmp_path: Path) -> None:
    told = install(machine(), "tool", {"usr/bin/tool": b"t"}, depends=["less"],
                   priority="important")
    captured = Captured(tmp_path, told, {"pager": ("less",)})
    assert "usr/bin/less" in captured.paths()
    assert [note for note in captured.draft.notes if "less" in note and "base" in note]


def test_refusals(tmp_path: Path) -> None:
    state = machines.state("base", machine())
    splitter = packages.Packages()
    with pytest.raises(exceptions.PackageNotFound, match="nginx"):
        splitter.split([state], {"web": ("nginx",)}, rest="x-rest", identity=Identity(),
                       spool=Spool(tmp_path))
    bare = machines.state("base", {"etc/x": b"x"})
    with pytest.raises(exceptions.Unsupported, match="step by step"):
        splitter.split([bare], SOFTWARE, rest="x-rest", identity=Identity(),
                       spool=Spool(tmp_path))


def test_a_directory_of_the_bases_files_stays_whoever_lists_it(tmp_path: Path) -> None:
    told = install(machine(), "tuner", {"usr/bin/tuner": b"t"},
                   listed=["var/lib/dpkg/alternatives"])
    captured = Captured(tmp_path, told, {"tuner": ("tuner",), **SOFTWARE})
    assert PAGER in captured.paths()
    assert captured.base.by_path[b"var/lib/dpkg/alternatives"].is_dir


def test_a_log_keeps_no_directory_of_a_part_in_the_base(tmp_path: Path) -> None:
    told = install(machine(), "tuner", {"usr/bin/tuner": b"t"}, listed=["var/log/tuner"])
    captured = Captured(tmp_path, told | {"var/log/tuner/tuner.log": b"tuned\n"},
                        {"tuner": ("tuner",), **SOFTWARE})
    assert b"var/log/tuner" not in captured.base.by_path

from __future__ import annotations

from typing import Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.capture.packagedb import base as packagedb

STATUS, INFO = b"var/lib/dpkg/status", b"var/lib/dpkg/info/"
EXTENDED = b"var/lib/apt/extended_states"

A = b"""Package: a
Status: install ok installed
Priority: Optional
Section: contrib/web
Installed-Size: 12
Architecture: amd64
Source: source-a (1.0)
Version: 1:2.0-1
Provides: httpd (= 2), web
Pre-Depends: init
Depends: b (>= 1) | c, d:any
Recommends: e
Conffiles:
 /etc/a.conf 0123456789abcdef0123456789abcdef
 /etc/with space 0123456789abcdef0123456789abcdef obsolete
 /etc/new newconffile
Description: something
"""


def stanza(name: str, status: str = "install ok installed", **fields: str) -> bytes:
    fields = {"Package": name, "Status": status, "Architecture": "amd64", "Version": "1",
              **{key.replace("_", "-"): value for key, value in fields.items()}}
    return "".join(f"{key}: {value}\n" for key, value in fields.items()).encode() + b"\n"


def test_a_package_with_all_its_fields(make: Any) -> None:
    db = packagedb.read(*make({
        STATUS: A,
        INFO + b"a.list": b"/.\n/etc\n/etc/a.conf\n/bin\n/bin/a\n/lib/x y\n",
        INFO + b"a.postinst": b"#!/bin/sh\npost\n", INFO + b"a.preinst": b"#!/bin/sh\npre\n",
        INFO + b"a.md5sums": b"", INFO + b"ab.list": b"/ab\n", INFO + b"format": b"1\n",
        EXTENDED: b"", b"bin": "usr/bin", b"lib": "/usr/lib", b"usr/bin/a": b"",
        b"usr/lib/x y": b""}))
    assert db is not None and db.format == "dpkg" and db.architecture == "amd64"
    [a] = db.packages.values()
    assert (a.name, a.version, a.architecture, a.source) == ("a", "1:2.0-1", "amd64", "source-a")
    assert (a.priority, a.section, a.installed_size, a.installed) == ("optional", "web", 12288, 7)
    assert a.depends == (("init",), ("b", "c"), ("d",)) and a.recommends == (("e",),)
    assert a.provides == ("httpd", "web") and a.manual and not a.essential
    assert a.files == (b"", b"bin", b"etc", b"etc/a.conf", b"usr/bin/a", b"usr/lib/x y")
    assert a.conffiles == (b"etc/a.conf", b"etc/new", b"etc/with space")
    assert a.scripts == b"#!/bin/sh\npre\n\n#!/bin/sh\npost\n"
    assert a.state == tuple(INFO + name for name in (
        b"a.list", b"a.md5sums", b"a.postinst", b"a.preinst"))
    assert db.owners(b"usr/bin/a") == ("a",) and db.owners(b"bin/a") == ()


def test_shared_files_are_the_databases_less_what_packages_have(make: Any) -> None:
    db = packagedb.read(*make({
        STATUS: A, INFO + b"a.list": b"", INFO + b"gone.postrm": b"", EXTENDED: b"",
        b"var/lib/dpkg/diversions": b"", b"var/lib/dpkg/triggers/File": b"",
        b"var/lib/dpkg/alternatives/awk": b"", b"var/lib/dpkgx": b""}))
    assert db is not None and db.paths == (
        EXTENDED, b"var/lib/dpkg/diversions", INFO + b"gone.postrm", STATUS,
        b"var/lib/dpkg/triggers/File")


def test_states(make: Any) -> None:
    db = packagedb.read(*make({STATUS: b"".join((
        stanza("whole"), stanza("held", "hold ok installed"),
        stanza("waits", "install ok triggers-pending"),
        stanza("stuck", "install reinstreq half-installed"),
        stanza("unpacked", "install ok unpacked"), stanza("gone", "deinstall ok config-files"),
        stanza("never", "unknown ok not-installed")))}))
    assert db is not None
    assert set(db.packages) == {"whole", "held", "waits", "unpacked"}
    assert db.unfinished == {"waits": "triggers-pending", "stuck": "half-installed",
                             "unpacked": "unpacked"}


def test_the_journal_of_updates_is_applied_in_order(make: Any) -> None:
    db = packagedb.read(*make({
        STATUS: stanza("a") + stanza("b"),
        b"var/lib/dpkg/updates/0000": stanza("a", Version="2") + stanza("new"),
        b"var/lib/dpkg/updates/0001": stanza("a", Version="3") +
        stanza("b", "deinstall ok not-installed"),
        b"var/lib/dpkg/updates/tmp.i": b"half of it"}))
    assert db is not None and set(db.packages) == {"a", "new"}
    assert db.packages["a"].version == "3"


def test_who_was_asked_for(make: Any) -> None:
    extended = b"".join(b"Package: %s\nArchitecture: %s\nAuto-Installed: %s\n\n" % row for row in (
        (b"data", b"amd64", b"1"), (b"lib", b"i386", b"1"), (b"asked", b"amd64", b"0")))
    content = {STATUS: b"".join((
        stanza("data", Architecture="all"), stanza("lib", Depends="data, asked"),
        stanza("lib", Architecture="i386"), stanza("asked"), stanza("dpkg"))), EXTENDED: extended}
    db = packagedb.read(*make(content))
    assert db is not None
    assert {key for key, one in db.packages.items() if one.manual} == {"lib:amd64", "asked",
                                                                      "dpkg"}
    del content[EXTENDED]
    db = packagedb.read(*make(content))
    assert db is not None
    assert {key for key, one in db.packages.items() if one.manual} == {"lib:amd64", "lib:i386",
                                                                      "dpkg"}


def test_architectures_have_lists_of_their_own(make: Any) -> None:
    db = packagedb.read(*make({
        STATUS: stanza("l") + stanza("l", Architecture="i386"),
        INFO + b"l:amd64.list": b"/64\n", INFO + b"l:i386.list": b"/32\n"}))
    assert db is not None
    assert db.packages["l:amd64"].files == (b"64",) and db.packages["l:i386"].files == (b"32",)
    assert db.packages["l:i386"].state == (INFO + b"l:i386.list",)


def test_diversions_move_the_files_of_others(make: Any) -> None:
    db = packagedb.read(*make({
        STATUS: stanza("dash") + stanza("bash") + stanza("local"), b"bin": "usr/bin",
        INFO + b"dash.list": b"/bin/sh\n", INFO + b"bash.list": b"/usr/bin/sh\n",
        INFO + b"local.list": b"/etc/x\n", b"usr/bin/sh": b"",
        b"var/lib/dpkg/diversions":
            b"/bin/sh\n/bin/sh.distrib\ndash\n/etc/x\n/etc/x.mine\n:\n"}))
    assert db is not None
    assert db.owners(b"usr/bin/sh") == ("dash",)
    assert db.owners(b"usr/bin/sh.distrib") == ("bash",)
    assert db.owners(b"etc/x.mine") == ("local",) and db.owners(b"etc/x") == ()


def test_protected_counts_as_essential(make: Any) -> None:
    db = packagedb.read(*make({STATUS: b"".join((
        stanza("e", Essential="yes"), stanza("p", Protected="yes"), stanza("i", Important="yes"),
        stanza("n", Essential="no")))}))
    assert db is not None
    assert {key for key, one in db.packages.items() if one.essential} == {"e", "p", "i"}


@pytest.mark.parametrize("content, words", [
    ({STATUS: stanza("../evil")}, "is not a package name"),
    ({STATUS: b"Status: install ok installed\n"}, "no Package field"),
    ({STATUS: b"Package: a\n"}, "no Status field"),
    ({STATUS: stanza("a", "install ok great")}, "is not a status"),
    ({STATUS: stanza("a", "installed")}, "is not a status"),
    ({STATUS: stanza("a") * 2}, "line 6: package a is there twice"),
    ({STATUS: stanza("a", Installed_Size="-5")}, "Installed-Size"),
    ({STATUS: stanza("a", Installed_Size="9" * 20)}, "Installed-Size"),
    ({STATUS: stanza("a", Version="1 2")}, "Version is '1 2'"),
    ({STATUS: stanza("a", Depends="b && c")}, "package a: 'b && c' is not a relation"),
    ({STATUS: stanza("a", Conffiles="\n nonsense")}, "Conffiles has a bad line"),
    ({STATUS: A, INFO + b"a.list": b"etc/x\n"}, "a.list: a line is not an absolute path"),
    ({STATUS: A, INFO + b"a.list": b"/" + b"x" * 5000}, "a.list: a line is not"),
    ({STATUS: A, b"var/lib/dpkg/diversions": b"/a\n/b\n"}, "groups of three"),
    ({STATUS: A, b"var/lib/dpkg/diversions": b"a\n/b\nx\n"}, "two paths and a package"),
    ({STATUS: A, EXTENDED: b"Package: /x\nAuto-Installed: 1\n"}, "is not a package name"),
    ({STATUS: A, b"var/lib/dpkg/updates/1": "/etc/passwd"}, "updates/1: it is not a regular"),
])
def test_damage_is_refused_with_a_reason(make: Any, content: dict[bytes, bytes | str],
                                         words: str) -> None:
    with pytest.raises(exceptions.InvalidInput) as caught:
        packagedb.read(*make(content))
    assert words in str(caught.value)


def test_old_layout_is_unsupported(make: Any) -> None:
    with pytest.raises(exceptions.Unsupported, match="info/format"):
        packagedb.read(*make({STATUS: A, INFO + b"format": b"0\n"}))


def test_an_enormous_status_is_not_read(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitimage_driver.capture.packagedb.dpkg._LIMIT", 10)
    manifest, _ = make({STATUS: A})
    with pytest.raises(exceptions.InvalidInput, match="more than such a file can have"):
        packagedb.read(manifest, lambda paths: pytest.fail("it was read"))


def test_no_database(make: Any) -> None:
    assert packagedb.read(*make({b"etc/passwd": b""})) is None
    assert packagedb.read(*make({STATUS: b""})) is None

"""Every merger on the files that its software really writes, and on others."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver import exceptions
from splitimage_driver.merge import (
    accounts,
    alternatives,
    debconf,
    diversions,
    dpkg_status,
    extended_states,
    lines,
    rows,
)
from splitimage_driver.merge.base import Merger

MERGERS: tuple[Merger, ...] = (
    dpkg_status.DpkgStatus(), extended_states.ExtendedStates(), debconf.Debconf(),
    alternatives.Alternatives(), diversions.Diversions(),
    accounts.Passwd(), accounts.Group(), accounts.Shadow(), accounts.GShadow(), accounts.SubIds(),
    lines.Shells(), lines.StatOverride(), lines.FileTriggers(), lines.Triggers(),
    lines.PendingTriggers(), lines.UcfHashes(), lines.UcfRegistry(), lines.Architectures())

SHARED = {
    "etc/passwd": accounts.Passwd, "etc/group": accounts.Group, "etc/shadow": accounts.Shadow,
    "etc/gshadow": accounts.GShadow, "etc/subuid": accounts.SubIds, "etc/shells": lines.Shells,
    "var/lib/dpkg/statoverride": lines.StatOverride,
    "var/lib/dpkg/diversions": diversions.Diversions,
    "var/lib/dpkg/triggers/File": lines.FileTriggers,
    "var/lib/dpkg/triggers/ldconfig": lines.Triggers,
    "var/lib/dpkg/triggers/Unincorp": lines.PendingTriggers,
    "var/lib/dpkg/arch": lines.Architectures,
    "var/lib/ucf/hashfile": lines.UcfHashes, "var/lib/ucf/registry": lines.UcfRegistry,
    "var/lib/dpkg/alternatives/awk": alternatives.Alternatives,
    "var/lib/dpkg/alternatives/my.cnf": alternatives.Alternatives,
    "var/lib/dpkg/alternatives/php": alternatives.Alternatives,
    "var/lib/dpkg/status": dpkg_status.DpkgStatus,
    "var/lib/apt/extended_states": extended_states.ExtendedStates,
    "var/cache/debconf/config.dat": debconf.Debconf,
    "var/cache/debconf/templates.dat": debconf.Debconf,
}
States = Callable[[str], list[bytes | None]]


def of(path: bytes) -> list[Merger]:
    return [merger for merger in MERGERS if merger.pattern.fullmatch(path)]


@pytest.mark.parametrize("path", SHARED)
def test_one_merger_takes_the_path_and_writes_what_it_read(path: str, states: States) -> None:
    (merger,) = of(path.encode())
    assert type(merger) is SHARED[path]
    contents = [content for content in states(path) if content is not None]
    assert contents
    assert all(rows.faithful(merger, content) for content in contents)


@pytest.mark.parametrize("path", SHARED)
def test_the_rows_of_all_steps_make_the_last_one(path: str, states: States) -> None:
    (merger,) = of(path.encode())
    contents = states(path)
    places = rows.places(merger, contents[0], contents[-1])
    parts = {f"part{n}": rows.diff(merger, path.encode(), old, new, places=places)
             for n, (old, new) in enumerate(itertools.pairwise(contents))}
    for order in (list(parts), list(parts)[::-1]):
        merged = rows.apply(merger, path.encode(), contents[0], {n: parts[n] for n in order})
        assert merged == rows.Merged(contents[-1], ())


@pytest.mark.parametrize("path", [
    b"var/lib/dpkg/status-old", b"var/lib/dpkg/triggers/Lock", b"etc/passwd-", b"etc/shells/x",
    b"var/lib/ucf/hashfile.0", b"var/cache/debconf/config.dat-old", b"x/etc/group",
    b"var/lib/dpkg/alternatives/a/b", b"etc/hosts"])
def test_other_paths_have_no_merger(path: bytes) -> None:
    assert of(path) == []


def test_php_without_the_steps_before_it(states: States) -> None:
    """A step's rows fit the base too: that is what parts are for."""
    merger = dpkg_status.DpkgStatus()
    path = "var/lib/dpkg/status"
    contents = states(path)
    changes = rows.diff(merger, path.encode(), contents[2], contents[3])
    content = rows.apply(merger, path.encode(), contents[0], {"php": changes}).content
    assert content is not None
    names = [key for key, _ in merger.parse(content)]
    assert names == sorted(names)
    assert b"php-common:all" in names
    assert b"mysql-common:all" not in names


def test_status_is_sorted_as_dpkg_does() -> None:
    merger = dpkg_status.DpkgStatus()
    keys = [b"lib:i386", b"lib-a:all", b"lib+x:amd64", b"lib:amd64", b"lib2:amd64", b"a:amd64"]
    assert sorted(keys, key=merger.order) == [  # type: ignore[arg-type]
        b"a:amd64", b"lib:amd64", b"lib:i386", b"lib+x:amd64", b"lib-a:all", b"lib2:amd64"]


@pytest.mark.parametrize(("merger", "content", "hint"), [
    (dpkg_status.DpkgStatus(), b"Package: gawk\nArchitecture: amd64\n\n", ("package", b"gawk")),
    (debconf.Debconf(), b"Name: mariadb-server/x\n\n", ("package", b"mariadb-server")),
    (debconf.Debconf(), b"Name: Shared Things/x\n\n", ("", b"")),
    (debconf.Debconf(), b"Name: alone\n\n", ("", b"")),
    (accounts.Passwd(), b"mysql:x:102:107::/:/bin/false\n", ("account", b"mysql")),
    (accounts.Group(), b"# comment\n", ("", b"")),
    (accounts.Passwd(), b"+::::::\n", ("", b"")),
    (lines.Shells(), b"/bin/dash\n", ("path", b"bin/dash")),
    (lines.Shells(), b"# valid shells\n", ("", b"")),
    (lines.StatOverride(), b"root #0 1733 /var/lib/a b\n", ("path", b"var/lib/a b")),
    (lines.FileTriggers(), b"/usr/share/a b man-db/noawait\n", ("package", b"man-db")),
    (lines.FileTriggers(), b"/lib libc6:amd64\n", ("package", b"libc6")),
    (lines.Triggers(), b"libc-bin:amd64/noawait\n", ("package", b"libc-bin")),
    (lines.PendingTriggers(), b"/usr/share/man man-db\n", ("path", b"usr/share/man")),
    (lines.UcfHashes(), b"e6fd6e8e29210c5678181f33177d5433  /etc/a\n", ("path", b"etc/a")),
    (lines.UcfRegistry(), b"php8.2-cli \t /etc/php.ini\n", ("package", b"php8.2-cli")),
    (diversions.Diversions(), b"/bin/sh\n/bin/sh.distrib\ndash\n", ("package", b"dash")),
    (diversions.Diversions(), b"/bin/sh\n/bin/sh.local\n:\n", ("", b"")),
    (alternatives.Alternatives(), b"auto\n/usr/bin/awk\n\n/usr/bin/gawk\n10\n\n",
     ("path", b"usr/bin/gawk")),
])
def test_hints(merger: Merger, content: bytes, hint: tuple[str, bytes]) -> None:
    ((key, row),) = merger.parse(content)
    assert merger.hint(key, row) == hint


@pytest.mark.parametrize(("merger", "key", "hint"), [
    (accounts.Group(), b"mysql", ("account", b"mysql")),
    (lines.StatOverride(), b"/var/lib/x", ("path", b"var/lib/x")),
    (lines.FileTriggers(), b"/etc/mysql mariadb-server/noawait", ("package", b"mariadb-server")),
    (lines.UcfRegistry(), b"/etc/x.conf", ("path", b"etc/x.conf")),
    (diversions.Diversions(), b"/bin/sh", ("path", b"bin/sh")),
])
def test_hints_of_removed_rows(merger: Merger, key: bytes, hint: tuple[str, bytes]) -> None:
    assert merger.hint(key, b"") == hint
    assert merger.hint(key + b"\x0000000002", b"") == hint


@pytest.mark.parametrize(("merger", "content"), [
    (dpkg_status.DpkgStatus(), b"garbage\n"),
    (dpkg_status.DpkgStatus(), b" continued: nothing\n"),
    (dpkg_status.DpkgStatus(), b"Architecture: all\n\n"),
    (dpkg_status.DpkgStatus(), b"Package: a\nDescription: \0\n\n"),
    (extended_states.ExtendedStates(), b"Package:\n\n"),
    (debconf.Debconf(), b"Template: x\n\n"),
    (accounts.Passwd(), b"root:x:0\n"),
    (accounts.Passwd(), b"root:x:zero:0:root:/root:/bin/sh\n"),
    (accounts.Passwd(), b"root:x:99999999999:0:root:/root:/bin/sh\n"),
    (accounts.Passwd(), b":x:0:0:root:/root:/bin/sh\n"),
    (accounts.Group(), b"root\n"),
    (accounts.SubIds(), b"a:b:c\n"),
    (lines.StatOverride(), b"\n"),
    (lines.StatOverride(), b"root root 1999 /x\n"),
    (lines.FileTriggers(), b"relative pkg\n"),
    (lines.Triggers(), b"two words\n"),
    (lines.PendingTriggers(), b"lonely\n"),
    (lines.UcfHashes(), b"123 /etc/x\n"),
    (lines.UcfRegistry(), b"package\n"),
    (lines.Architectures(), b"AMD 64\n"),
    (lines.Shells(), b"/bin/\0sh\n"),
    (diversions.Diversions(), b"/a\n/b\n"),
    (diversions.Diversions(), b"a\nb\nc\n"),
    (lines.Shells(), b"/" * (lines.MAX_BYTES + 1)),
])
def test_garbled_files_are_refused(merger: Merger, content: bytes) -> None:
    with pytest.raises(exceptions.InvalidInput):
        merger.parse(content)


LIKELY = st.one_of(
    st.binary(max_size=60),
    st.lists(st.sampled_from([
        b"auto", b"manual", b"", b"/a", b"/b", b"1", b"s", b"Package: a", b"Name: a/b", b" x",
        b"a:x:1:2:::", b"a:b", b"root root 755 /x", b"pkg", b":", b"t pkg"]), max_size=12)
    .map(b"\n".join))


@given(content=LIKELY, merger=st.sampled_from(MERGERS))
def test_any_bytes_are_refused_or_understood(content: bytes, merger: Merger) -> None:
    """What is written from the rows means what was read."""
    with contextlib.suppress(exceptions.InvalidInput):
        parsed = merger.parse(content)
        assert merger.parse(merger.build(parsed)) == parsed


# -- combine -------------------------------------------------------------------

MEMBERS = st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), unique=True, max_size=4)


def group(members: list[bytes]) -> bytes:
    return b"adm:x:4:" + b",".join(members)


def gshadow(members: list[bytes]) -> bytes:
    return b"adm:*:" + b",".join(members) + b":" + b",".join(members[::-1])


def question(owners: list[bytes]) -> bytes:
    return b"Name: x/y\nOwners: " + b", ".join([b"x", *owners]) + b"\nFlags: seen"


@pytest.mark.parametrize(("merger", "make"), [
    (accounts.Group(), group), (accounts.GShadow(), gshadow), (debconf.Debconf(), question)])
@given(base=st.none() | MEMBERS, one=MEMBERS, two=MEMBERS, three=MEMBERS)
def test_combining_commutes_and_associates(
        merger: Merger, make: Callable[[list[bytes]], bytes], base: list[bytes] | None,
        one: list[bytes], two: list[bytes], three: list[bytes]) -> None:
    was = None if base is None else make(base)
    first, second, third = make(one), make(two), make(three)

    def join(left: bytes, right: bytes) -> bytes:
        merged = merger.combine(b"k", was, left, right)
        assert merged is not None
        return merged

    assert join(first, second) == join(second, first)
    assert join(join(first, second), third) == join(first, join(second, third))


@pytest.mark.parametrize(("base", "one", "two", "merged"), [
    (b"g:x:4:a", b"g:x:4:a,b", b"g:x:4:a,c", b"g:x:4:a,b,c"),
    (b"g:x:4:a,b", b"g:x:4:b", b"g:x:4:a,b,c", b"g:x:4:b,c"),
    (b"g:x:4:a,b", b"g:x:4:b", b"g:x:4:a", b"g:x:4:"),
    (None, b"g:x:4:b", b"g:x:4:a", b"g:x:4:a,b"),
    (b"g:x:4:", b"g:x:5:", b"g:x:4:a", None),
    (b"g:x:4:", b"g:secret:4:", b"g:x:4:a", None),
])
def test_group_members(base: bytes | None, one: bytes, two: bytes, merged: bytes | None) -> None:
    assert accounts.Group().combine(b"g", base, one, two) == merged


def test_users_and_packages_are_not_combined() -> None:
    assert accounts.Passwd().combine(b"a", None, b"a:x:1:1:::/bin/sh", b"a:x:1:1:::/bin/a") is None
    assert dpkg_status.DpkgStatus().combine(b"a:all", None, b"Package: a", b"Package: b") is None


def test_debconf_owners() -> None:
    merger = debconf.Debconf()
    base = b"Name: a/b\nTemplate: a/b\nOwners: libc6, libc6:amd64"
    one = b"Name: a/b\nTemplate: a/b\nOwners: cron, libc6, libc6:amd64"
    two = b"Name: a/b\nTemplate: a/b\nOwners: libc6:amd64, libpam0g:amd64"
    assert merger.combine(b"a/b", base, one, two) == (
        b"Name: a/b\nTemplate: a/b\nOwners: cron, libc6:amd64, libpam0g:amd64")
    assert merger.combine(b"a/b", base, one, two + b"\nFlags: seen") is None
    assert merger.combine(b"a/b", base, one, b"Name: a/b\nTemplate: a/b") is None
    gone = b"Name: a/b\nTemplate: a/b\nOwners: libc6"
    other = b"Name: a/b\nTemplate: a/b\nOwners: libc6:amd64"
    assert merger.combine(b"a/b", base, gone, other) is None


def test_pending_triggers() -> None:
    assert lines.PendingTriggers().combine(b"t", None, b"t man-db", b"t cron man-db") == (
        b"t cron man-db")

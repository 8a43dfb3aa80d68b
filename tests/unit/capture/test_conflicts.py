"""Accounts that clash between parts, and what parts disagree about."""

from __future__ import annotations

import struct

import pytest

from splitimage_driver import exceptions
from splitimage_driver.archive import acl
from splitimage_driver.capture import conflicts
from splitimage_driver.model.part import PartManifest, Row
from tests.unit.making import file, layer

SHARED = {b"etc/passwd": b"root:x:0:0::/root:/bin/sh\n", b"etc/group": b"root:x:0:\n"}


def account(name: str, uid: int, gid: int, path: str = "srv/f") -> PartManifest:
    entry = struct.Struct("<HHI")
    listed = struct.pack("<I", 2) + b"".join(entry.pack(*one) for one in (
        (1, 6, 2**32 - 1), (2, 6, uid), (4, 4, 2**32 - 1), (8, 4, gid), (16, 6, 2**32 - 1),
        (32, 0, 2**32 - 1)))
    return PartManifest((layer(
        file(path, uid=uid, gid=gid, xattrs=((acl.ACCESS, listed), (b"user.x", b"\x66"))),
        rows=[Row(b"etc/passwd", name.encode(), f"{name}:x:{uid}:{gid}::/:/bin/sh".encode()),
              Row(b"etc/group", name.encode(), f"{name}:x:{gid}:".encode())]),))


def settle(new: dict[str, PartManifest], others: dict[str, PartManifest], *,
           renumber: bool = True) -> tuple[dict[str, PartManifest], list[str]]:
    notes: list[str] = []
    return conflicts.settle_accounts(new, others, SHARED, renumber=renumber, notes=notes), notes


def numbers(manifest: PartManifest) -> tuple[object, ...]:
    [one] = manifest.layers
    rows = {row.path: row.value for row in one.rows}
    e = one.entries[0]
    named = {bits[0]: bits[2] for bits in acl.parse(dict(e.xattrs)[acl.ACCESS])
             if bits[0] in (2, 8)}
    return (rows[b"etc/passwd"].split(b":")[2:4], e.uid, e.gid, named[2], named[8])  # type: ignore[union-attr]


def test_without_a_clash_nothing_changes() -> None:
    new = {"redis": account("redis", 103, 108)}
    found, notes = settle(new, {"mysql": account("mysql", 102, 107)}, renumber=False)
    assert (found, notes) == (new, [])


def test_a_clash_is_refused_unless_renumbering_is_asked_for() -> None:
    with pytest.raises(exceptions.AccountClash, match="mysql=102 in mysql, redis=102 in redis"):
        settle({"redis": account("redis", 102, 107)}, {"mysql": account("mysql", 102, 107)},
               renumber=False)


def test_the_new_part_gets_free_numbers_everywhere() -> None:
    others = {"mysql": account("mysql", 102, 107), "x": account("x", 100, 100)}
    found, notes = settle({"redis": account("redis", 102, 107)}, others)
    assert numbers(found["redis"]) == ([b"101", b"101"], 101, 101, 101, 101)
    assert notes == ["uid 102 became 101", "gid 107 became 101"]
    assert dict(found["redis"].layers[0].entries[0].xattrs)[b"user.x"] == b"\x66"


def test_an_account_that_both_have_gets_the_number_it_has_there() -> None:
    others = {"web": account("ssl-cert", 105, 110), "mysql": account("mysql", 103, 107)}
    found, notes = settle({"mail": account("ssl-cert", 103, 107)}, others)
    assert numbers(found["mail"]) == ([b"105", b"110"], 105, 110, 105, 110)
    assert notes == ["uid 103 became 105", "gid 107 became 110"]


def test_several_parts_of_the_new_machine_are_renumbered_alike() -> None:
    new = {"redis": account("redis", 102, 107),
           "tools": PartManifest((layer(file("srv/g", uid=102, gid=7)),))}
    found, _ = settle(new, {"mysql": account("mysql", 102, 107)})
    [one] = found["tools"].layers
    assert (one.entries[0].uid, one.entries[0].gid) == (numbers(found["redis"])[1], 7)


def test_clashes_of_what_was_there_before_are_not_for_the_new_part() -> None:
    others = {"a": account("a", 102, 107), "b": account("b", 102, 108)}
    with pytest.raises(exceptions.AccountClash, match="a=102 in a, b=102 in b"):
        settle({"c": account("c", 103, 109)}, others)

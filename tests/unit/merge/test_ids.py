from __future__ import annotations

import pytest

from splitimage_driver import exceptions
from splitimage_driver.merge import ids
from splitimage_driver.merge.ids import AccountClash, Holder
from splitimage_driver.model.part import Row

BASE = {ids.PASSWD: b"root:x:0:0::/root:/bin/sh\nsshd:x:101:65534::/:/bin/false\n",
        ids.GROUP: b"root:x:0:\nssl-cert:x:106:\n",
        b"etc/shells": b"not an account\n"}


def user(name: str, uid: int, gid: int = 100) -> Row:
    return Row(ids.PASSWD, name.encode(), f"{name}:x:{uid}:{gid}::/:/bin/false".encode())


def group(name: str, gid: int) -> Row:
    return Row(ids.GROUP, name.encode(), f"{name}:x:{gid}:".encode())


def test_one_number_for_two_names() -> None:
    clashes = ids.account_clashes(BASE, {"redis": [user("redis", 102)],
                                         "mysql": [user("mysql", 102), group("mysql", 107)]})
    assert clashes == [AccountClash("uid", "number", (
        Holder("mysql", b"mysql", 102), Holder("redis", b"redis", 102)))]
    assert str(clashes[0]) == "uid with several names: mysql=102 in mysql, redis=102 in redis"


def test_one_name_with_two_numbers() -> None:
    clashes = ids.account_clashes(BASE, {"a": [group("data", 107)], "b": [group("data", 108)]})
    assert clashes == [AccountClash("gid", "name", (
        Holder("a", b"data", 107), Holder("b", b"data", 108)))]


def test_a_part_against_the_base() -> None:
    (clash,) = ids.account_clashes(BASE, {"b": [user("mysql", 101)]})
    assert clash.holders == (Holder("", b"sshd", 101), Holder("b", b"mysql", 101))
    assert str(clash) == "uid with several names: sshd=101 in the base, mysql=101 in b"
    (clash,) = ids.account_clashes(BASE, {"b": [user("sshd", 105)]})
    assert clash.reason == "name"


def test_the_same_account_in_two_parts_is_none() -> None:
    shared = [user("www", 103), group("www", 103)]
    assert ids.account_clashes(BASE, {"a": shared, "b": shared, "c": [user("x", 104)]}) == []


def test_two_names_of_one_machine_are_its_intention() -> None:
    base = {ids.PASSWD: b"root:x:0:0:::\ntoor:x:0:0:::\n"}
    assert ids.account_clashes(base, {}) == []
    alias = [user("one", 102), user("two", 102)]
    assert ids.account_clashes(base, {"a": alias}) == []
    # another machine that has only one of them agrees with it
    assert ids.account_clashes(base, {"a": alias, "b": [user("two", 102)]}) == []
    assert len(ids.account_clashes(base, {"a": alias, "b": [user("three", 102)]})) == 1


def test_a_number_that_the_part_itself_freed() -> None:
    gone = Row(ids.PASSWD, b"sshd", None)
    assert ids.account_clashes(BASE, {"a": [gone, user("new", 101)]}) == []
    assert len(ids.account_clashes(BASE, {"a": [gone], "b": [user("new", 101)]})) == 1


def test_the_order_of_parts_does_not_show() -> None:
    parts = {"a": [user("x", 102)], "b": [user("y", 102)], "c": [user("x", 103)]}
    assert ids.account_clashes(BASE, parts) == ids.account_clashes(
        BASE, dict(reversed(parts.items())))
    assert len(ids.account_clashes(BASE, parts)) == 2


def test_many_names_of_one_number_are_compared_fast() -> None:
    base = {ids.PASSWD: b"".join(b"u%d:x:5:5:::\n" % n for n in range(5000))}
    rows = [user(f"v{n}", 5) for n in range(5000)]
    (clash,) = ids.account_clashes(base, {"p": rows})
    assert len(clash.holders) == 10000


def test_garbled_rows_are_refused() -> None:
    with pytest.raises(exceptions.InvalidInput):
        ids.account_clashes(BASE, {"a": [Row(ids.PASSWD, b"x", b"x:x:many")]})


def test_free_ids_stay_in_their_range() -> None:
    parts = {"a": [user("a", 100), user("b", 102), user("carl", 1000)]}
    assert ids.free_ids("uid", [102, 100, 1000, 70000], BASE, parts) == {
        100: 103, 102: 104, 1000: 1001, 70000: 105}
    assert ids.free_ids("gid", [106], BASE, parts) == {106: 100}


def test_no_free_id() -> None:
    full = [group(f"g{n}", n) for n in ids.SYSTEM]
    with pytest.raises(exceptions.InvalidInput, match="no other is free between 100 and 999"):
        ids.free_ids("gid", [106], BASE, {"a": full})


def test_renumber() -> None:
    rows = [user("mysql", 102, 107), group("mysql", 107), group("other", 102),
            Row(ids.PASSWD, b"gone", None), Row(ids.SUBUID, b"102", b"102:100000:65536", (1, 2)),
            Row(ids.SUBUID, b"mysql", b"mysql:200000:65536"),
            Row(ids.PASSWD, b"+", b"+::::::"), Row(b"etc/shells", b"/102", b"/102")]
    assert ids.renumber(rows, {102: 150}, {107: 160}) == [
        user("mysql", 150, 160), group("mysql", 160), group("other", 102),
        Row(ids.PASSWD, b"gone", None), Row(ids.SUBUID, b"150", b"150:100000:65536", (1, 2)),
        *rows[5:]]


def test_renumbering_answers_the_clash() -> None:
    parts = {"redis": [user("redis", 102, 107), group("redis", 107)],
             "mysql": [user("mysql", 102, 107), group("mysql", 107)]}
    assert len(ids.account_clashes(BASE, parts)) == 2
    parts["redis"] = ids.renumber(parts["redis"], ids.free_ids("uid", [102], BASE, parts),
                                  ids.free_ids("gid", [107], BASE, parts))
    assert ids.account_clashes(BASE, parts) == []

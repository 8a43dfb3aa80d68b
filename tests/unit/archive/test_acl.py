from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver.archive import acl

#: As the kernel gave it for user::rw-,user:33:rw-,group::r--,mask::rw-,other::r--
KERNEL = bytes.fromhex("02000000" "01000600ffffffff" "0200060021000000"
                       "04000400ffffffff" "10000600ffffffff" "20000400ffffffff")
TEXT = "user::rw-,user:33:rw-,group::r--,mask::rw-,other::r--"

_bits = st.integers(0, 7)
_named = st.dictionaries(st.integers(0, 2**32 - 2), _bits, max_size=5)


def _text(bits: int) -> str:
    return "".join(letter if bits & flag else "-" for letter, flag in zip("rwx", (4, 2, 1),
                                                                          strict=True))


def test_the_kernels_form() -> None:
    assert acl.from_text(TEXT) == KERNEL
    assert acl.to_text(KERNEL) == TEXT


@given(st.tuples(_bits, _bits, _bits, _bits), _named, _named, st.booleans())
def test_round_trip_in_any_order(four: tuple[int, int, int, int], users: dict[int, int],
                                 groups: dict[int, int], backwards: bool) -> None:
    lines = [f"user::{_text(four[0])}", *(f"user:{u}:{_text(b)}" for u, b in users.items()),
             f"group::{_text(four[1])}", *(f"group:{g}:{_text(b)}" for g, b in groups.items()),
             f"mask::{_text(four[2])}", f"other::{_text(four[3])}"]
    value = acl.from_text("\n".join(reversed(lines) if backwards else lines))
    assert acl.from_text(acl.to_text(value)) == value
    assert len(value) == 4 + 8 * len(lines)


def test_the_mode_shows_the_mask_as_the_group() -> None:
    assert acl.mode(KERNEL, 0o4700) == 0o4664


@pytest.mark.parametrize("text", [
    "", "\n", "user::rw-,group::r--,other::r--"], ids=["empty", "blank", "only the mode"])
def test_what_says_no_more_than_the_mode_is_none(text: str) -> None:
    assert acl.from_text(text) == b""


@pytest.mark.parametrize("text", [
    "u::rw-,u:33:rw-,g::r--,m::rw-,o::r--",
    "default:user::rw-\ndefault:user:33:rw-\ndefault:group::r--\ndefault:mask::rw-\n"
    "default:other::r--\n",
    "user::rw-,user:www-data:rw-:33,group::r--,mask:rw-,other:r--",
    "user::rw-\nuser:33:rw-\t#effective:r--\ngroup::r--\nmask::rw-\nother::r--",
], ids=["letters", "default", "star", "getfacl"])
def test_other_spellings(text: str) -> None:
    assert acl.from_text(text) == KERNEL


@pytest.mark.parametrize("text", [
    "user::rw-,user:www-data:rw-,group::r--,mask::rw-,other::r--",
    "user::rw-,user:33:rw-,group::r--,other::r--",
    "user::rw-,user:33:rw-,user:33:r--,group::r--,mask::rw-,other::r--",
    "user::rq-,group::r--,other::r--", "nonsense", "user:1", "other:5:rwx",
    "user::rw-,user:4294967295:rw-,group::r--,mask::rw-,other::r--",
    "user::rw-,user:²:rw-,group::r--,mask::rw-,other::r--",
])
def test_refused_texts(text: str) -> None:
    with pytest.raises(ValueError, match="ACL"):
        acl.from_text(text)


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_refused_or_understood(value: bytes) -> None:
    try:
        entries = acl.parse(value)
    except ValueError:
        return
    assert len(entries) >= 3


@pytest.mark.parametrize("value", [
    b"", KERNEL[:-1], b"\x03" + KERNEL[1:], KERNEL[:4], KERNEL[:4] + KERNEL[12:] + KERNEL[4:12],
    KERNEL.replace(b"\x10\x00\x06", b"\x11\x00\x06"),
    KERNEL.replace(b"\x21\x00\x00\x00", b"\xff" * 4),
])
def test_refused_values(value: bytes) -> None:
    with pytest.raises(ValueError, match="ACL"):
        acl.to_text(value)

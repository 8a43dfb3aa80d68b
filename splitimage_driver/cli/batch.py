"""The file of ``launch --batch``: several requests in one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from splitimage_driver import exceptions

_LIMIT = 4 << 20
MAX_COUNT = 1000
#: Names of servers: what needs no quoting anywhere.
NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$"

_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
_Positive = Annotated[int, msgspec.Meta(ge=1)]


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One request of the file, named as the command's options are; None:
    what the command line says."""

    composite: str = ""
    parts: tuple[str, ...] = ()
    filesets: tuple[str, ...] = ()
    on_conflict: dict[str, Literal["keep", "replace", "concatenate"]] = {}
    name: Annotated[str, msgspec.Meta(pattern=NAME)] | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)] = 1
    publish: Literal["assembled", "booted", "never"] | None = None
    deliver: Literal["inject", "stream", "auto"] | None = None
    memory: _Positive | None = None
    cpus: _Positive | None = None
    ports: tuple[_Port, ...] | None = None
    wait: _Port | None = None
    wait_complete: bool | None = None
    path: str | None = None
    timeout: Annotated[float, msgspec.Meta(ge=0)] | None = None


def read(path: Path) -> list[Entry]:
    """:raises InvalidInput: naming the place in the file"""
    what = f"batch {path}"
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT + 1)
    except OSError as error:
        raise exceptions.InvalidInput(what=what, reason=error.strerror or str(error)) from error
    if len(data) > _LIMIT:
        raise exceptions.TooLarge(what=what, size=len(data), limit=_LIMIT, unit="bytes",
                                  option="nothing: split the file")
    try:
        entries = msgspec.json.decode(data, type=list[Entry])
    except msgspec.DecodeError as error:  # its message names the place: $[1].parts
        raise exceptions.InvalidInput(what=what, reason=str(error)) from error
    if not entries:
        raise exceptions.InvalidInput(what=what, reason="it has no request")
    return entries

"""What a server is to be made of: read from its metadata, or its flavor."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.model.composite import TENANTS_ACTIONS, Answer, answered
from splitimage_driver.model.delivery import WAYS

PREFIX = "splitimage:"
#: Keys of a server's metadata and of a flavor's extra specs: lists of names,
#: separated by commas.
PARTS, FILESETS = PREFIX + "parts", PREFIX + "filesets"
#: Answers ``/PATH=ACTION``, separated by commas or lines. Nova's values have at
#: most 255 bytes, so that a list may go on in keys that are numbered.
CONFLICTS = PREFIX + "conflicts"
#: How parts get onto its disk.
DELIVER = PREFIX + "deliver"
#: Of a change while it runs: ``true``: what its user has changed is removed, too.
FORCE = PREFIX + "force"
#: What the host tells of the layout; or what is to be done about it.
LAYOUT = PREFIX + "layout"
RETRY, STOP = "retry", "stop"
_KEYS = (PARTS, FILESETS, CONFLICTS, DELIVER, FORCE)
_CONTINUED = re.compile(re.escape(CONFLICTS) + r"(?:_(\d{1,3}))?\Z")
#: A comma may be one of a path; an answer begins with a slash.
_BETWEEN = re.compile(r"\s*,\s*(?=/)|\s*,?\s*\n\s*")


class Wanted(msgspec.Struct, frozen=True):
    """:ivar parts: None: nobody says; the image may
    :ivar filesets: names or ids of the project's own file sets
    :ivar answers: to clashes of these with parts, in order of their paths
    :ivar deliver: one of :data:`~splitimage_driver.model.delivery.WAYS`; "": nobody says
    :ivar force: see :data:`FORCE`
    """

    parts: tuple[str, ...] | None = None
    filesets: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()
    deliver: str = ""
    force: bool = False

    @property
    def says_nothing(self) -> bool:
        """Of what it is to be made of."""
        return self.parts is None and not self.filesets


def wanted(metadata: Mapping[str, str], extra_specs: Mapping[str, str]) -> Wanted:
    """Of a server. What its metadata say goes before what its flavor says, key
    by key; an empty list is a list.

    :raises InvalidInput: it has keys of ours that there are not, or a value that
        cannot be read
    """
    for key in sorted(metadata):
        if (key.startswith(PREFIX) and key not in (*_KEYS, LAYOUT)
                and not _CONTINUED.match(key)):
            raise exceptions.InvalidInput(
                what=f"metadata {key}",
                reason=f"there is no such key: {', '.join(_KEYS[:-1])} and {_KEYS[-1]} are")
    parts, filesets = (properties.names(found) if (found := metadata.get(key, extra_specs.get(key)))
                       is not None else None for key in (PARTS, FILESETS))
    answers = _answers("metadata", metadata)
    if answers is None:
        answers = _answers("flavor", extra_specs)
    return Wanted(parts, filesets or (), answers or (),
                  _deliver("metadata", metadata) or _deliver("flavor", extra_specs) or "",
                  _force(metadata))


def _answers(where: str, said: Mapping[str, str]) -> tuple[Answer, ...] | None:
    """None: it says nothing of them."""
    keys = [key for key in said if _CONTINUED.match(key)]
    found: dict[bytes, Answer] = {}
    for key in sorted(keys):
        for text in _split(said[key]):
            path, _, action = text.rpartition("=")
            path, action = path.rstrip(), action.strip()
            if action not in TENANTS_ACTIONS or not path.startswith("/") or not path.strip("/"):
                raise exceptions.InvalidInput(
                    what=f"{where} {key}",
                    reason=f"{text!r} is not of the form /PATH={'|'.join(TENANTS_ACTIONS)}")
            answer = answered(path, action)
            if answer.path in found:
                raise exceptions.InvalidInput(what=f"{where} {key}",
                                              reason=f"{path} is answered twice")
            found[answer.path] = answer
    return tuple(found[path] for path in sorted(found)) if keys else None


def _split(text: str) -> Iterator[str]:
    for item in _BETWEEN.split(text):
        item = item.strip().removesuffix(",").rstrip()
        if item:
            yield item


def _deliver(where: str, said: Mapping[str, str]) -> str | None:
    if (found := said.get(DELIVER)) is None:
        return None
    if found not in WAYS:
        raise exceptions.InvalidInput(what=f"{where} {DELIVER}",
                                      reason=f"{found!r} is none of {', '.join(WAYS)}")
    return found


def _force(metadata: Mapping[str, str]) -> bool:
    found = metadata.get(FORCE, "false").strip().lower()
    if found not in ("true", "false"):
        raise exceptions.InvalidInput(what=f"metadata {FORCE}",
                                      reason=f"{found!r} is neither true nor false")
    return found == "true"

"""What a Glance image says of itself: the properties of schema 1.

====================  ==========================================================
all                   ``splitimage_schema`` (``1``), ``splitimage_role``,
                      ``splitimage_os`` (digest of the base's manifest; not on
                      file sets, which fit every system)
composite             ``splitimage_manifest``, ``splitimage_restore``, and
                      ``splitimage_part_NAME`` for each part: ``IMAGE DIGEST``
part                  ``splitimage_manifest``, ``splitimage_digest``,
                      ``splitimage_kind``, ``splitimage_blob`` (sha256 of the
                      squashfs; ``none``: it has no contents)
completed             ``splitimage_manifest``, ``splitimage_composite``,
                      ``splitimage_recipe``, ``splitimage_parts``,
                      ``splitimage_filesets``, ``splitimage_disk`` (sha256 of the
                      data), ``splitimage_tree`` (digest of the manifest),
                      ``splitimage_size`` (of the disk as the guest sees it),
                      ``splitimage_used`` (seconds since the epoch),
                      ``splitimage_booted``
composite             ``splitimage_unfinished``: since when it is being stored;
                      complete ones have it no more
manifest, part        ``splitimage_for``: image it was stored for,
                      ``splitimage_touched``: when somebody last reckoned with it
                      (as long as there is no manifest, completed images, too),
                      ``splitimage_unreferenced``: since when nothing refers to it,
                      ``splitimage_deactivated``: composite it went inactive with
composite             ``splitimage_default_parts``: names, separated by commas, of
                      a server that does not say what it is made of; its owner's
gold disk, imported   ``splitimage_split``: what is to become parts, see
                      :func:`software`; ``splitimage_error``: why that failed
====================  ==========================================================

Values have at most 255 bytes, because Nova cuts longer ones silently: a list
that is longer goes on in ``NAME_1``, ``NAME_2`` and so on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from splitimage_driver import exceptions
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import MAX_PARTS, Composite
from splitimage_driver.model.part import NAME, Part

SCHEMA = "1"
PREFIX = "splitimage_"
MAX_VALUE = 255

COMPOSITE, PART, MANIFEST, COMPLETED = "composite", "part", "manifest", "completed"
ROLES = (COMPOSITE, PART, MANIFEST, COMPLETED)

_OF_PART = PREFIX + "part_"
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
#: Of an image.
IMAGE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
#: Continued lists have no more pieces: 64 names of 63 bytes fit.
_PIECES = 20
#: No number is larger, nor is any no number at all.
_LARGEST = 2**63
SPLIT, ERROR = "splitimage_split", "splitimage_error"
#: What a completed image has as its composite has it, because servers and the
#: scheduler go by it. Signatures are of other data; the rest is Glance's own.
_INHERITED = re.compile(r"(hw[_:]|trait:|os_(?!hash_|hidden\Z|glance_)|img_(?!signature)"
                        r"|(architecture|kernel_id|ramdisk_id|vm_mode|hypervisor_type"
                        r"|hypervisor_version_requires)\Z)")
#: So many of them: with what this project adds they are what Glance allows.
_MAX_INHERITED = 80
DEFAULT_PARTS = "splitimage_default_parts"
#: Of dpkg or rpm, with an architecture where there are several.
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*(:[a-z0-9_]+)?\Z")


class Link(NamedTuple):
    """What a composite says of a part.

    :ivar image: id of the part's Glance image
    :ivar digest: the part's id
    """

    image: str
    digest: str

    def __str__(self) -> str:
        return f"{self.image} {self.digest}"


class Links(NamedTuple):
    """The parts of a composite: by name, and the restore part."""

    parts: dict[str, Link]
    restore: Link


# -- writing -----------------------------------------------------------------------


def common(role: str, system: str = "") -> dict[str, str]:
    found = {"splitimage_schema": SCHEMA, "splitimage_role": role}
    return found | {"splitimage_os": system} if system else found


def of_composite(found: Composite, manifest: str, links: Links) -> dict[str, str]:
    """:param manifest: id of the image that holds the record"""
    return {**common(COMPOSITE, found.base.manifest), "splitimage_manifest": manifest,
            "splitimage_restore": str(links.restore),
            **{_OF_PART + name: str(link) for name, link in links.parts.items()}}


def of_part(found: Part, manifest: str, system: str = "") -> dict[str, str]:
    return {**common(PART, system), "splitimage_manifest": manifest,
            "splitimage_digest": found.id, "splitimage_kind": found.kind,
            "splitimage_blob": found.blob or "none"}


def of_completed(found: Image, manifest: str, system: str) -> dict[str, str]:
    return {**common(COMPLETED, system), "splitimage_manifest": manifest,
            "splitimage_composite": found.composite, "splitimage_recipe": found.recipe,
            **_pieces("splitimage_parts", found.parts),
            **_pieces("splitimage_filesets", found.filesets),
            "splitimage_disk": found.disk, "splitimage_tree": found.manifest,
            "splitimage_size": str(found.virtual_size), "splitimage_used": used(found.last_used),
            "splitimage_booted": str(found.booted)}


def of_manifest(holder: str) -> dict[str, str]:
    """:param holder: id of the image whose manifest it is"""
    return {**common(MANIFEST), "splitimage_for": holder}


def inherited(composite: Mapping[str, Any]) -> dict[str, str]:
    """Properties of a composite that an image made from it has, too.

    :raises BadImage: they are too many
    """
    found = _for_servers(composite)
    if len(found) > _MAX_INHERITED:
        raise bad(composite, f"it has {len(found)} properties for servers, at most "
                             f"{_MAX_INHERITED} are allowed")
    return found


def stale(image: Mapping[str, Any], composite: Mapping[str, Any]) -> dict[str, str | None]:
    """Changes of an image that was made when its composite had others."""
    wanted = inherited(composite)
    return {**{name: None for name in _for_servers(image) if name not in wanted},
            **{name: value for name, value in wanted.items() if image.get(name) != value}}


def _for_servers(image: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in image.items()
            if _INHERITED.match(name) and isinstance(value, str)}


def used(seconds: float) -> str:
    """The value of ``splitimage_used``."""
    return f"{seconds:.3f}"


def _pieces(name: str, words: Iterable[str]) -> dict[str, str]:
    pieces = [""]
    for word in words:
        if pieces[-1] and len(pieces[-1]) + 1 + len(word) > MAX_VALUE:
            pieces.append("")
        pieces[-1] += ("," if pieces[-1] else "") + word
    return {f"{name}_{number}" if number else name: piece
            for number, piece in enumerate(pieces) if piece or not number}


# -- reading -----------------------------------------------------------------------


def role(image: Mapping[str, Any]) -> str:
    """What the image is; "" for any other image.

    :raises BadImage: of a schema that this release does not read
    """
    found = image.get("splitimage_role")
    if found not in ROLES:
        return ""
    if image.get("splitimage_schema") != SCHEMA:
        raise bad(image, f"its schema is {str(image.get('splitimage_schema'))[:20]!r}, this "
                         f"release reads {SCHEMA}")
    return str(found)


def check(image: Mapping[str, Any], wanted: str) -> None:
    """:raises BadImage: it is no image of that role"""
    if role(image) != wanted:
        raise bad(image, f"it is no {wanted} image")


def links(image: Mapping[str, Any]) -> Links:
    """The parts of a composite.

    :raises BadImage: a property is not as this project writes it
    """
    check(image, COMPOSITE)
    names = [key for key in image if key.startswith(_OF_PART)]
    if len(names) > MAX_PARTS:
        raise bad(image, f"it has {len(names)} parts, at most {MAX_PARTS} are allowed")
    found = {}
    for key in sorted(names):
        name = key.removeprefix(_OF_PART)
        if not NAME.match(name):
            raise bad(image, f"{key[:80]!r} names no part")
        found[name] = _link(image, key)
    return Links(found, _link(image, "splitimage_restore"))


def _link(image: Mapping[str, Any], key: str) -> Link:
    match str(image.get(key, "")).split(" "):
        case [target, digest] if IMAGE_ID.match(target) and _DIGEST.match(digest):
            return Link(target, digest)
    raise bad(image, f"{key[:80]} is not an image's id and a digest")


def default_parts(image: Mapping[str, Any]) -> tuple[str, ...]:
    """Of a composite."""
    return names(str(image.get(DEFAULT_PARTS, "")))


def names(text: str) -> tuple[str, ...]:
    """Of a list that people write, separated by commas: each once, in order."""
    return tuple(dict.fromkeys(filter(None, (word.strip() for word in text.split(",")))))


def manifest(image: Mapping[str, Any]) -> str:
    """Id of the image that holds the manifest."""
    found = str(image.get("splitimage_manifest", ""))
    if not IMAGE_ID.match(found):
        raise bad(image, "splitimage_manifest is no image's id")
    return found


def digest(image: Mapping[str, Any], name: str = "splitimage_digest") -> str:
    """:raises BadImage: the property is no sha256"""
    found = str(image.get(name, ""))
    if not _DIGEST.match(found):
        raise bad(image, f"{name} is no sha256")
    return found


def blob(image: Mapping[str, Any]) -> str:
    """sha256 of a part's squashfs; "" where it has none."""
    return "" if image.get("splitimage_blob") == "none" else digest(image, "splitimage_blob")


def words(image: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A list, with what it goes on in."""
    pieces = [image.get(name)]
    while len(pieces) < _PIECES and (more := image.get(f"{name}_{len(pieces)}")):
        pieces.append(more)
    return tuple(word for piece in pieces if piece for word in str(piece).split(","))


def orders(image: Mapping[str, Any]) -> list[str]:
    """Names of the properties that :func:`software` reads, in order."""
    names = [SPLIT, *(f"{SPLIT}_{number}" for number in range(1, _PIECES))]
    return [name for name in names if name in image]


def software(image: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """What a gold disk is to be split into: packages by name of a part.

    Written as on the command line, ``NAME=PACKAGE,...``, one after the other with
    blanks between them; a name that comes again goes on.

    :raises InvalidInput: it is not written like that
    """
    def wrong(reason: str) -> exceptions.InvalidInput:
        return exceptions.InvalidInput(what=SPLIT, reason=reason)

    names = orders(image)
    strayed = sorted(key for key in image if key.startswith(SPLIT) and key not in names)
    if strayed or names != [SPLIT, *(f"{SPLIT}_{n}" for n in range(1, len(names)))]:
        raise wrong(f"it goes on in {SPLIT}_1, {SPLIT}_2 and so on, at most to "
                    f"{SPLIT}_{_PIECES - 1}")
    if any(len(str(image[name]).encode()) > MAX_VALUE for name in names):
        raise wrong(f"a value has more than {MAX_VALUE} bytes: go on in {SPLIT}_1")
    found: dict[str, tuple[str, ...]] = {}
    for word in (word for name in names for word in str(image[name]).split()):
        part, _, listed = word.partition("=")
        packages = tuple(listed.split(","))
        if not NAME.match(part) or not all(_PACKAGE.match(each) for each in packages):
            raise wrong(f"{word[:80]!r} is not of the form NAME=PACKAGE,PACKAGE")
        found[part] = (*found.get(part, ()), *packages)
    if not found:
        raise wrong("it names no software; write NAME=PACKAGE,PACKAGE for each piece")
    if len(found) > MAX_PARTS:
        raise wrong(f"{len(found)} pieces of software, at most {MAX_PARTS} parts fit")
    return found


def completed(image: Mapping[str, Any], created: float) -> Image:
    """The record of a completed image; its mounts are those of its composite.

    :param created: seconds since the epoch
    :raises BadImage:
    """
    check(image, COMPLETED)
    parts, filesets = words(image, "splitimage_parts"), words(image, "splitimage_filesets")
    if not all(NAME.match(name) for name in parts):
        raise bad(image, "splitimage_parts names what is no part")
    if not all(_DIGEST.match(each) for each in filesets):
        raise bad(image, "splitimage_filesets names what is no digest")
    if not IMAGE_ID.match(str(image.get("splitimage_composite", ""))):
        raise bad(image, "splitimage_composite is no image's id")
    try:
        size = int(image["splitimage_size"])
        last_used = float(image["splitimage_used"])
    except (KeyError, ValueError) as error:
        raise bad(image, "splitimage_size or splitimage_used is no number") from error
    if not (0 <= size < _LARGEST and 0 <= last_used < _LARGEST):
        raise bad(image, "splitimage_size or splitimage_used is out of range")
    return Image(
        id=image["id"], name=str(image.get("name") or ""),
        composite=image["splitimage_composite"], parts=parts, filesets=filesets,
        recipe=digest(image, "splitimage_recipe"), disk=digest(image, "splitimage_disk"),
        disk_size=int(image.get("size") or 0), virtual_size=size,
        manifest=digest(image, "splitimage_tree"), mounts=(), owner=str(image["owner"]),
        public=image.get("visibility") == "public", created=created, last_used=last_used,
        booted=image.get("splitimage_booted") == "True")


def bad(image: Mapping[str, Any], reason: str) -> exceptions.BadImage:
    return exceptions.BadImage(image=image.get("id", "?"), reason=reason)

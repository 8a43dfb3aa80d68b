"""What a project has in the image service, and who sees it."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.store.glance import api
from splitimage_driver.store.glance.api import Description, Images

LOG = logging.getLogger(__name__)
FOR, KIND = "splitimage_for", "splitimage_kind"
TOUCHED, UNREFERENCED = "splitimage_touched", "splitimage_unreferenced"
DEACTIVATED = "splitimage_deactivated"
#: Of a composite whose publisher has not come to its end.
UNFINISHED_MARK = "splitimage_unfinished"

ID = re.compile(r"(?<![0-9a-f-])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-f-])")
#: Properties of a composite that name parts.
_LINKS = ("splitimage_part_", "splitimage_restore")
#: Ids in one request.
_CHUNK = 100
#: How often a project can be a member of one image: Glance does not look whether
#: it is one already while somebody else makes it one.
_TIMES = 5
#: From the narrowest to the widest.
_WIDTH = (api.PRIVATE, api.SHARED, api.COMMUNITY, api.PUBLIC)
#: States of an image that has never been complete.
RECORD = frozenset({api.QUEUED, api.SAVING})
UNFINISHED = RECORD | {api.IMPORTING, "uploading"}


class Access(NamedTuple):
    """:ivar visibility: of Glance
    :ivar members: projects that a shared image is shared with
    """

    visibility: str = api.PRIVATE
    members: frozenset[str] = frozenset()

    def __or__(self, other: object) -> Access:
        if not isinstance(other, Access):
            return NotImplemented
        return Access(max(self.visibility, other.visibility, key=_WIDTH.index),
                      self.members | other.members)


# -- what a publisher does ---------------------------------------------------------


def claim(images: Images, part: str, holder: str) -> Description:
    """Reckon with a part that is there already: the collector leaves it alone
    as long as the holder is in the making.

    :param part: id of its image
    :param holder: id of the image that is going to refer to it
    :raises NotFound: it went meanwhile: store it anew
    """
    return images.update(part, {FOR: holder, TOUCHED: now(), UNREFERENCED: None,
                                "protected": True}, insist=True)


def touch(images: Images, image: str) -> Description:
    """Its publisher is still at work."""
    return images.update(image, {TOUCHED: now()}, insist=True)


def now() -> str:
    return properties.used(time.time())


# -- what a project has ------------------------------------------------------------


def mine(image: Mapping[str, Any], role: str, owner: str) -> bool:
    """Whether it is an image of that role of that owner. A snapshot of a
    server, which inherits the properties of its image, is none."""
    return (image.get("owner") == owner and image.get("splitimage_role") == role
            and image.get("splitimage_schema") == properties.SCHEMA and not foreign(image))


def foreign(image: Mapping[str, Any]) -> bool:
    """Whether it is a user's snapshot of a server, which inherits the properties
    of that server's image."""
    return image.get("image_type") == "snapshot" or bool(image.get("base_image_ref"))


def of_role(images: Images, role: str, owner: str, **filters: str) -> list[Description]:
    """All such images of a project, hidden or not."""
    # An administrator's list has others' community images only with "all".
    found = images.list(hidden=None, splitimage_role=role, owner=owner, visibility="all",
                        **filters)
    return [image for image in found if mine(image, role, owner)]


def named(images: Images, ids: Iterable[str], owner: str) -> dict[str, Description]:
    """Those of the images that are there and the owner's."""
    wanted = sorted(ids)
    return {image["id"]: image for start in range(0, len(wanted), _CHUNK)
            for image in images.list(hidden=None, owner=owner, visibility="all",
                                     id="in:" + ",".join(wanted[start:start + _CHUNK]))
            if image.get("owner") == owner}


def usable(images: Images, image: Mapping[str, Any]) -> bool:
    """Whether the project that asks may build on a composite, as Glance shows it
    to that project: its own, a public one, or one that was shared with it and
    that it has accepted."""
    if foreign(image):
        return False
    project, visibility = images.project, image.get("visibility")
    if visibility == api.PUBLIC or (project and image.get("owner") == project):
        return True
    if visibility != api.SHARED:
        return False
    try:
        return images.members(image["id"]).get(project) == "accepted"
    except (exceptions.NotFound, exceptions.NotPermitted):
        return False


def refers(image: Mapping[str, Any]) -> set[str]:
    """Ids of the images that it names in whatever property of ours: rather one
    too many, where a property is not as this project writes it."""
    return {found for name, value in image.items()
            if name.startswith(properties.PREFIX) and name != FOR
            for found in ID.findall(str(value))}


def parts_of(image: Mapping[str, Any] | None) -> set[str]:
    """Ids of the images of a composite's parts; empty if it is no composite."""
    if image is None or image.get("splitimage_role") != properties.COMPOSITE:
        return set()
    return refers({name: value for name, value in image.items() if name.startswith(_LINKS)})


def admit(images: Images, image: Description, access: Access,
          changes: Mapping[str, Any]) -> Iterator[str]:
    """Let these see an image, and nobody else.

    :param image: its description, which is brought up to date
    :param changes: of it besides
    :returns: what was done
    """
    name, shared = image["id"], access.visibility == api.SHARED
    was_shared = image["visibility"] == api.SHARED
    wanted = access.members if shared else frozenset()
    present: set[str] = set()
    if was_shared:
        # Also before it is private or public: members that are left come back
        # when it is shared the next time.
        present = yield from _dismiss(images, name, wanted)
    changes = {**changes, "visibility": access.visibility}
    different = {key for key, value in changes.items() if image.get(key) != value}
    if different:
        found = images.update(name, changes, known=image)
        image.clear()
        image.update(found)
        yield (access.visibility if "visibility" in different
               else "changed: " + ", ".join(sorted(different)))
    if shared and not was_shared:
        present = yield from _dismiss(images, name, wanted)
    for project in sorted(wanted - present):
        images.add_member(name, project)
        yield f"shared with {project}"


def _dismiss(images: Images, image: str,
             wanted: frozenset[str]) -> Generator[str, None, set[str]]:
    """Share it with these only, at most; returns with whom it is."""
    for _ in range(_TIMES):
        present = set(images.members(image))
        if present <= wanted:
            break
        for project in sorted(present - wanted):
            images.remove_member(image, project)
            yield f"not shared with {project} any more"
    return present & wanted


def withdraw(images: Images, image: Description) -> None:
    """Before it is deleted: unprotected and nobody's but its owner's. Glance
    fails to delete an image, half-way and for ever, that two have shared with
    the same project at the same moment.
    """
    for what in admit(images, image, Access(), {"protected": False}):
        LOG.debug("image %s, which is to be deleted: %s", image["id"], what)


def moment(image: Mapping[str, Any]) -> float:
    """When Glance last changed it."""
    return datetime.datetime.fromisoformat(str(image["updated_at"])).timestamp()

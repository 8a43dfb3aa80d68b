"""Removes what dead sessions of this host have begun in the image service."""

from __future__ import annotations

from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.store.glance import holdings
from splitimage_driver.store.glance.api import Description, Images
from splitimage_driver.store.glance.journal import Begun, Journal

LOG = logging.getLogger(__name__)


def discard(images: Images, journal: Journal, project: str | None) -> list[str]:
    """At once: their makers are known to be dead. Never an image that became
    complete before that.

    :param project: None: of all projects; takes an administrator
    :returns: ids of what is removed
    """
    removed = []
    for begun in journal.dead(project):
        try:
            if _discard(images, begun):
                LOG.info("image %s of project %s is removed: whoever made it was killed",
                         begun.image, begun.project)
                removed.append(begun.image)
            journal.end(begun.image)
        except exceptions.CloudUnreachable as error:
            LOG.warning("what killed commands have left stays for now: %s", error)
            break  # the others would take as long
        except exceptions.SplitImageError as error:
            LOG.warning("image %s, which a killed command has left, stays for now: %s",
                        begun.image, error)
    return removed


def _discard(images: Images, begun: Begun) -> bool:
    """Whether it was there, and not finished."""
    try:
        found = images.get(begun.image)
    except exceptions.NotFound:
        return False
    if not _ours(found, begun.project) or _finished(images, found):
        return False
    images.discard(begun.image)
    return True


def _ours(image: Description, project: str) -> bool:
    return any(holdings.mine(image, role, project) for role in properties.ROLES)


def _finished(images: Images, image: Description) -> bool:
    """A manifest is, when what it was stored for is and names it."""
    if image["splitimage_role"] != properties.MANIFEST:
        return _complete(image)
    try:
        holder = images.get(str(image.get(holdings.FOR)))
    except exceptions.NotFound:
        return False
    return _complete(holder) and holder.get("splitimage_manifest") == image["id"]


def _complete(image: Description) -> bool:
    return image["status"] not in holdings.UNFINISHED and holdings.UNFINISHED_MARK not in image

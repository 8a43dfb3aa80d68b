"""Who sees parts and manifests, and when they go.

To Glance they are images like others. What they share with the image that
refers to them is kept here:

==================  =============================================================
a part              is seen by whoever sees one of its owner's composites that
                    refer to it, and inactive when all of these are
a manifest          goes with the image that refers to it
what nothing        is seen by its owner only; :func:`collect` removes it after
refers to           a grace time, in which a launch that began before can end
==================  =============================================================

Everything is done with the rights of the one who asks, and only to images of the
one owner: what a property names among another tenant's images is never touched,
not even for an administrator. Everything may be killed anywhere, run again, and
run twice at a time.

What a publisher owes to the collector: the record of an image is there before
anything is stored ``splitimage_for`` it; a part that is there already is
:func:`claimed <claim>` before it is used again, and looked for once more when the
composite that refers to it is written; a record without data is touched while its
publisher works. File sets live until their owner deletes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.model.part import FILESET
from splitimage_driver.store.glance import api, holdings
from splitimage_driver.store.glance.api import Description, Images
from splitimage_driver.store.glance.collector import Removed, collect
from splitimage_driver.store.glance.holdings import Access, claim, touch

__all__ = ["Access", "Change", "Removed", "claim", "collect", "reconcile", "reconcile_all",
           "touch"]
LOG = logging.getLogger(__name__)
#: How often it is looked whether all is in line, while others change it too.
_ROUNDS = 5


class Change(NamedTuple):
    """:ivar image: id
    :ivar name: of the image
    :ivar what: was done, for people
    """

    image: str
    name: str
    what: str


def reconcile(images: Images, composite: str, *, last: Description | None = None,
              owner: str = "") -> list[Change]:
    """Bring the access and the existence of a composite's parts and manifests
    in line with it. After a change of it, after its deletion, or as a repair.

    :param composite: id of its image, which may be gone
    :param last: its description before the change or deletion, where that is
        known; else the owner's parts are searched for what was stored for it
    :param owner: of an image that is gone and of which no description is known;
        "": the project that asks
    :returns: what was done
    :raises NotPermitted: who asks may not do all of it; the rest is done
    :raises QuotaExceeded: Glance allows no more members of an image; likewise
    """
    changes: list[Change] = []
    for _ in range(_ROUNDS):
        # Somebody may have changed the composite after it was read here, and
        # have been overtaken: over when there is nothing left to do.
        line = _Line(images, composite, last, owner)
        line.draw()
        changes += line.changes
        if not line.changes and not line.overtaken:
            break
    if line.refused is not None:
        raise line.refused
    return changes


def reconcile_all(images: Images, owner: str) -> list[Change]:
    """All composites of a project, as a repair.

    :raises NotPermitted: as :func:`reconcile`, after the others were tried
    """
    changes, refused = [], None
    for composite in holdings.of_role(images, properties.COMPOSITE, owner):
        try:
            changes += reconcile(images, composite["id"], owner=owner)
        except (exceptions.NotPermitted, exceptions.QuotaExceeded) as error:
            refused = refused or error
    if refused is not None:
        raise refused
    return changes


class _Line:
    """One look, and what follows from it.

    :ivar changes: what was done
    :ivar refused: what may not be done
    :ivar overtaken: somebody else has changed an image since the look
    """

    def __init__(self, images: Images, composite: str, last: Description | None,
                 owner: str) -> None:
        self.images, self.composite, self.last = images, composite, last
        self.changes: list[Change] = []
        self.refused: exceptions.SplitImageError | None = None
        self.overtaken = False
        try:
            self.shown: Description | None = images.get(composite)
        except exceptions.NotFound:
            self.shown = None
        self.owner = str((self.shown or last or {}).get("owner") or owner or images.project)
        self.composites = {
            each["id"]: each for each in holdings.of_role(images, properties.COMPOSITE, self.owner)}
        self._access: dict[str, Access] = {}

    def draw(self) -> None:
        images, owner = self.images, self.owner
        stored = {role: holdings.of_role(images, role, owner, splitimage_for=self.composite)
                  for role in (properties.PART, properties.MANIFEST)}
        parts = {each["id"]: each for each in stored[properties.PART]}
        linked = set().union(*map(holdings.parts_of, (*self._present(), self.last)))
        parts |= {part: each for part, each in
                  holdings.named(images, linked - parts.keys(), owner).items()
                  if holdings.mine(each, properties.PART, owner)}
        held = {str(image.get("splitimage_manifest")) for image in
                (*parts.values(), *self._present())}
        manifests = {name: each for name, each in holdings.named(images, held, owner).items()
                     if holdings.mine(each, properties.MANIFEST, owner)}
        for image in self._present():
            self._tried(self._follow, manifests.get(str(image.get("splitimage_manifest"))), [image])
        for part in parts.values():
            self._tried(self._part, part, manifests.get(str(part.get("splitimage_manifest"))))
        if self.shown is None:
            for manifest in stored[properties.MANIFEST]:
                self._tried(self._drop, manifest, "the composite is gone")

    def _present(self) -> list[Description]:
        found = self.composites.get(self.composite)
        return [found] if found else []

    def _tried(self, work: Callable[..., None], image: Description | None, *more: Any) -> None:
        """What others have done meanwhile is as good; what is not permitted does
        not keep from what is."""
        if image is None:
            return
        try:
            work(image, *more)
        except exceptions.NotFound:
            LOG.debug("image %s went meanwhile", image["id"])
        except exceptions.AlreadyExists as error:
            LOG.info("image %s is being changed by somebody else: %s", image["id"], error)
        except (exceptions.NotPermitted, exceptions.QuotaExceeded) as error:
            if self._differs(image):
                # Glance forbids to ask for the members of one that is not shared.
                self.overtaken = True
                return
            LOG.warning("image %s of composite %s: %s", image["id"], self.composite, error)
            self.refused = self.refused or error

    def _differs(self, image: Description) -> bool:
        try:
            return bool(self.images.get(image["id"])["visibility"] != image["visibility"])
        except exceptions.NotFound:
            return True

    # -- one image ----------------------------------------------------------------------

    def _part(self, part: Description, manifest: Description | None) -> None:
        users = [each for each in self.composites.values() if part["id"] in holdings.parts_of(each)]
        if users:
            self._follow(part, users)
            self._tried(self._follow, manifest, users)
            return
        holder = part.get(holdings.FOR)
        lasting = part.get(holdings.KIND) in (None, FILESET)
        if holder == self.composite and self._unfinished():
            return
        if holder == self.composite and not lasting and self._never_finished(part):
            self._drop(part, "what it was stored for was never finished")
            self._tried(self._drop, manifest, "its part is gone")
            return
        changes: dict[str, Any] = {}
        if not lasting and holder in (None, self.composite):
            changes = {holdings.UNREFERENCED: part.get(holdings.UNREFERENCED) or holdings.now()}
            if self.shown is None:
                # Else the collector took it for what a failure has left.
                changes[holdings.FOR] = None
        self._admit(part, Access(), changes)
        self._tried(self._admit, manifest, Access(), {})

    def _unfinished(self) -> bool:
        """Whether somebody is making the composite just holdings.now."""
        return self.shown is not None and self.shown["status"] in holdings.UNFINISHED

    def _never_finished(self, part: Description) -> bool:
        """Whether the composite has gone before it, or the part, was complete."""
        return self.shown is None and (
            part["status"] in holdings.RECORD
            or (self.last is not None
                and (self.last.get("splitimage_role") != properties.COMPOSITE
                     or self.last.get("status") in holdings.UNFINISHED)))

    def _follow(self, image: Description, users: list[Description]) -> None:
        """Seen and active like the composites that refer to it."""
        access = Access()
        for each in users:
            access |= self.access(each)
        self._admit(image, access, {"protected": True, holdings.UNREFERENCED: None})
        active = any(each["status"] != api.DEACTIVATED for each in users)
        status, marked = image["status"], holdings.DEACTIVATED in image
        # One that somebody else has deactivated stays so.
        if not active and status == api.ACTIVE:
            self.images.update(image["id"], {holdings.DEACTIVATED: users[0]["id"]}, known=image)
            self.images.deactivate(image["id"])
            self._changed(image, "deactivated")
        elif active and marked:
            if status == api.DEACTIVATED:
                self.images.deactivate(image["id"], back=True)
                self._changed(image, "reactivated")
            self.images.update(image["id"], {holdings.DEACTIVATED: None}, known=image)

    def access(self, composite: Description) -> Access:
        """Who sees a composite."""
        name = composite["id"]
        if name not in self._access:
            visibility = composite["visibility"]
            members: frozenset[str] = frozenset()
            if visibility == api.SHARED:
                try:
                    members = frozenset(self.images.members(name))
                except (exceptions.NotFound, exceptions.NotPermitted):
                    # Gone, or not shared any more; the next look tells.
                    LOG.debug("composite %s has no members now", name)
                visibility = api.SHARED if members else api.PRIVATE
            self._access[name] = Access(visibility, members)
        return self._access[name]

    def _admit(self, image: Description, access: Access, changes: Mapping[str, Any]) -> None:
        for what in holdings.admit(self.images, image, access, changes):
            self._changed(image, what)

    def _drop(self, image: Description, reason: str) -> None:
        holdings.withdraw(self.images, image)
        self.images.discard(image["id"])
        self._changed(image, f"deleted, {reason}")

    def _changed(self, image: Description, what: str) -> None:
        LOG.info("%s %s of composite %s: %s", image["splitimage_role"], image["id"],
                 self.composite, what)
        self.changes.append(Change(image["id"], str(image.get("name") or ""), what))

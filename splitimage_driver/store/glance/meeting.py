"""How those who make the same completed image meet: it is assembled and published
once, however many hosts are asked for it.

Each creates a record without data, and looks at all records of the same owner and
recipe: the oldest leads, the others wait for it. One that shows no sign of life is
taken over.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator

from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.model.candidate import Image
from splitimage_driver.progress import Operation
from splitimage_driver.store import base
from splitimage_driver.store.glance import api, holdings
from splitimage_driver.store.glance.api import Description, Images

LOG = logging.getLogger(__name__)
_POLL = 1.0
#: Times of Glance's records are whole seconds.
_SECOND = 1.2


class Meeting:
    """:param stall: seconds after which another publisher of the same recipe that
    does nothing is taken for dead
    """

    def __init__(self, images: Images, *, stall: float) -> None:
        self.images, self.stall = images, stall
        #: Records that were taken over, should they stay all the same.
        self._dead: set[str] = set()

    # -- who leads ----------------------------------------------------------------------

    def same(self, image: Image) -> list[Description]:
        """All records of its recipe and composite that this project has, the
        oldest first."""
        found = [each for each in self.images.list(
            hidden=True, splitimage_role=properties.COMPLETED, owner=self.images.project,
            splitimage_recipe=image.recipe, splitimage_composite=image.composite)
            if self._counts(each, image)]
        return sorted(found, key=lambda each: (each["created_at"], each["id"]))

    def _counts(self, image: Description, wanted: Image) -> bool:
        """Whether it is, or is going to be, what a look-up finds."""
        try:
            if image["status"] == api.ACTIVE:
                properties.completed(image, 0.0)
            else:  # what it is made of is known at the end only
                properties.check(image, properties.COMPLETED)
        except exceptions.BadImage:
            return False
        return ((image["status"] == api.ACTIVE or image["id"] not in self._dead)
                and image.get("owner") == self.images.project
                and image.get("splitimage_recipe") == wanted.recipe
                and image.get("splitimage_composite") == wanted.composite
                and not holdings.foreign(image)
                and image["status"] in (api.QUEUED, api.SAVING, api.ACTIVE))

    def finished(self, image: Image) -> Description | None:
        """One that is there already."""
        return _finished(self.same(image))

    def older(self, mine: Description, image: Image) -> Description | None:
        """A finished one that is older; two clocks may disagree who leads."""
        first = self.finished(image)
        return first if first is not None and first["id"] != mine["id"] else None

    def leader(self, mine: str, image: Image) -> Description | None:
        """Wait for whoever makes the same; None: this one is to do it.

        :param mine: id of the own record
        :raises Cancelled: see :attr:`Images.stopping`
        """
        with contextlib.ExitStack() as stack:
            waiting: Operation | None = None
            seen: tuple[str, ...] = ()
            since = time.monotonic()
            while True:
                same = self.same(image)
                done, first = _finished(same), next(iter(same), None)
                if done is not None or first is None or first["id"] == mine:
                    return done
                if waiting is None:
                    LOG.info("%s is being made elsewhere as image %s: waiting for it",
                             image.name, first["id"])
                    waiting = stack.enter_context(
                        Operation("wait", unit="steps", subject=image.name))
                now = (first["id"], first["status"], first["updated_at"], self._sign(first))
                if now != seen:
                    seen, since = now, time.monotonic()
                elif time.monotonic() - since > self.stall:
                    LOG.warning("image %s of the same recipe is stuck: taking over", first["id"])
                    self._take_over(first)
                if self.images.stopping.wait(_POLL):
                    raise exceptions.Cancelled(what=f"waiting for {image.name}")
                waiting.advance()

    def _sign(self, image: Description) -> str:
        """Of life: when its publisher last touched its manifest. Before there is
        one, it touches the record."""
        try:
            return str(self.images.get(properties.manifest(image))["updated_at"])
        except (exceptions.NotFound, exceptions.BadImage):
            return ""

    def _take_over(self, image: Description) -> None:
        self._dead.add(image["id"])
        for name in (image["id"], str(image.get("splitimage_manifest", ""))):
            try:
                if name:
                    self.images.discard(name)
            except exceptions.SplitImageError as error:
                LOG.warning("image %s stays until the collector comes: %s", name, error)

    # -- signs of life ------------------------------------------------------------------

    @contextlib.contextmanager
    def alive(self, *images: str) -> Iterator[None]:
        """Touch them now and then for the length of the block. An image whose data
        go up must not be among them, but its manifest: a change could undo what the
        end of an upload notes."""
        ended = threading.Event()

        def touch() -> None:
            while not ended.wait(self.stall / 4):
                for image in images:
                    try:
                        holdings.touch(self.images, image)
                    except exceptions.SplitImageError as error:
                        LOG.debug("cannot touch %s: %s", image, error)

        thread = threading.Thread(target=touch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class Announcement(base.Announced):
    """A record whose image is going to be made.

    :ivar image: of which this tells
    :ivar record: id of its record
    :ivar holder: id that its manifest is going to have
    :ivar done: what somebody else has made of it meanwhile
    :ivar kept: the record has become the image
    """

    def __init__(self, meeting: Meeting, image: Image) -> None:
        self.meeting, self.image = meeting, image
        self.record, self.holder = str(uuid.uuid4()), str(uuid.uuid4())
        self.done: Description | None = None
        self.kept = False
        self._began = time.monotonic()
        self._sign = contextlib.ExitStack()
        self._taken = False

    def enter(self) -> None:
        """The record is there: wait while somebody else leads."""
        self._began = time.monotonic()
        self._sign.enter_context(self.meeting.alive(self.record))
        self.done = self.meeting.leader(self.record, self.image)
        self.there = self.done is not None

    def check(self) -> None:
        pause(self._began)
        first = next(iter(self.meeting.same(self.image)), None)
        if first is not None and first["id"] != self.record:
            raise base.Overtaken

    def take(self) -> bool:
        """Whether the record can become the image, which it can once; from now on
        nobody touches it."""
        self._sign.close()
        first, self._taken = not self._taken, True
        return first

    def leave(self) -> None:
        self._sign.close()


def pause(began: float) -> None:
    """Wait until nobody creates a record any more that is as old as one of then.

    :param began: when that was created, by the monotonic clock
    """
    time.sleep(max(0.0, _SECOND - (time.monotonic() - began)))


def _finished(same: list[Description]) -> Description | None:
    return next((each for each in same if each["status"] == api.ACTIVE), None)

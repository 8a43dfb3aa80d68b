"""From a server's request to the image that it boots."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.application import Application
from splitimage_driver.assembly import disks
from splitimage_driver.deliveries import Delivery
from splitimage_driver.model import properties
from splitimage_driver.model.delivery import INJECT, STREAM
from splitimage_driver.model.plan import Request
from splitimage_driver.nova.laying import Made
from splitimage_driver.nova.request import Wanted

LOG = logging.getLogger(__name__)


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar image: id of the image that the server was asked for with
    :ivar role: of that image
    :ivar disk_bytes: of the server's root disk; 0: as large as the image
    """

    image: str
    role: str
    wanted: Wanted
    disk_bytes: int


#: Takes what a server is given to lay, what it consists of until then, and what
#: it consists of then.
Lay = Callable[[Delivery, Made, Made], None]


def complete(application: Application, start: Start, *, check: Callable[[], None],
             seed: Callable[[str, Path], None], lay: Lay) -> str:
    """Find, or assemble and publish, the image for a server; returns its id. Where
    the server lays its parts itself it is the image that it starts from.

    :param check: called before anything is put together for it
    :param seed: takes the id of an image that was assembled here, and its disk
    :param lay: called where the server lays something itself
    :raises SplitImageError:
    """
    wanted, composite = start.wanted, start.image
    if start.role == properties.COMPLETED:
        if wanted.says_nothing:
            return start.image
        # A rebuild that names no image has the server's present one.
        composite = application.store.image(start.image).composite
    parts = wanted.parts
    if parts is None:
        parts = application.store.default_parts(composite)
    if not parts and not wanted.filesets:
        return composite
    check()
    request = Request(composite=composite, parts=parts, filesets=wanted.filesets,
                      answers=wanted.answers)
    if application.images.deliveries.way(request, wanted.deliver or INJECT) == STREAM:
        return _start(application, request, lay)
    with application.images.assembled(request, fetch=False,
                                      largest=start.disk_bytes) as (plan, done):
        if done.image is None:
            return composite
        if plan.exact:
            LOG.info("image %s is an exact match", done.image.id)
        else:
            seed(done.image.id, application.store.path(done.disk))
        return done.image.id


def _start(application: Application, request: Request, lay: Lay) -> str:
    """The image that a server starts from to lay the rest itself."""
    # Nova fetches the disk by itself.
    with application.images.deliveries.streamed(request, fetch=False) as found:
        if found.delivery is not None:
            had = made(application, found.image or request.composite)
            lay(found.delivery, had, Made(composite=request.composite, parts=request.parts,
                                          filesets=request.filesets))
        return found.image or request.composite


def made(application: Application, image: str) -> Made:
    """What a server of an image consists of.

    :param image: id of a composite or a completed image
    :raises NotFound: it is neither, or gone
    """
    try:
        found = application.store.image(image)
    except exceptions.NotFound:
        return Made(composite=application.store.composite(image).id)
    return Made(composite=found.composite, parts=found.parts, filesets=found.filesets)


def seed(disk: Path, target: Path, *, scratch: Path, raw: bool) -> None:
    """Put a disk where Nova keeps the images that it has downloaded.

    :param disk: qcow2
    :param target: in Nova's image cache; complete as soon as it is there
    :param scratch: a directory for the work, which goes if it fails
    :param raw: whether that cache has raw images
    """
    made = scratch / target.name
    if raw:
        disks.convert(disk, disks.QCOW2, made, disks.RAW)
    else:
        disks.copy(disk, made, expected=None)
    made.chmod(0o644)
    try:
        made.rename(target)
    except OSError:  # another file system
        disks.copy(made, target, expected=None)

"""How an import is split: all of it that needs no Glance.

The work is a capture like any other, in a process of its own: what libguestfs
does to a process, memory it keeps, the lock of the interpreter that it holds,
are not the image service's then, and a hostile disk that brings it down ends no
other import. Only when the capture is complete is anything stored in Glance.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from oslo_log import log as logging

from splitimage_driver import conf as configuration
from splitimage_driver import exceptions, workers
from splitimage_driver.assembly import disks
from splitimage_driver.capture.machine import Gold
from splitimage_driver.exceptions import SplitImageError
from splitimage_driver.launch import accelerator
from splitimage_driver.model import properties
from splitimage_driver.model.composite import Composite
from splitimage_driver.model.part import check_name
from splitimage_driver.service import ImageService
from splitimage_driver.store.glance import holdings
from splitimage_driver.store.glance.api import PUBLIC, Images
from splitimage_driver.store.glance.store import GlanceStore
from splitimage_driver.store.local import LocalStore

LOG = logging.getLogger(__name__)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What an image asks for.

    :ivar image: its id, which is to be the composite's
    :ivar former: properties as they were, that the split changes
    """

    image: str
    name: str
    owner: str
    public: bool
    disk_format: str
    software: dict[str, tuple[str, ...]]
    former: dict[str, str]


def order(image: Mapping[str, Any], project: str) -> Order:
    """Read it from an image that has the property ``splitimage_split``.

    :param project: that imports
    :raises InvalidInput: what it asks for is not possible
    """
    if image["owner"] != project:
        # Parts have to be the composite's owner's, and are stored as the user's.
        raise exceptions.InvalidInput(what="the import", reason="only the image's own project "
                                                                "may split it")
    name = check_name("composite", str(image.get("name") or ""))
    check_name("part", f"{name}-rest")
    software = properties.software(image)
    Gold(disk=Path(), software=software).names()
    if image.get("container_format") != "bare":
        raise exceptions.InvalidInput(what="container_format", reason="a gold disk is bare")
    if image.get("disk_format") not in (disks.RAW, disks.QCOW2):
        raise exceptions.InvalidInput(what="disk_format", reason="a gold disk is raw or qcow2")
    if "img_signature" in image:
        raise exceptions.InvalidInput(
            what="img_signature", reason="it does not fit the base, which is what is stored")
    orders = properties.orders(image)
    strayed = sorted(key for key in image if key.startswith(properties.PREFIX)
                     and key not in (*orders, properties.ERROR))
    if strayed:
        raise exceptions.InvalidInput(
            what=f"property {strayed[0][:80]}",
            reason="a gold disk has none of a composite's; remove it")
    return Order(image=str(image["id"]), name=name, owner=str(image["owner"]),
                 public=image.get("visibility") == PUBLIC,
                 disk_format=str(image["disk_format"]), software=software,
                 former={key: str(image[key]) for key in orders})


# -- the split ----------------------------------------------------------------------


class Captured:
    """A gold disk, split, in a private directory that goes with the block.

    :ivar store: that has parts and base
    :ivar scratch: room for more
    """

    def __init__(self, store: LocalStore, composite: Composite, scratch: Path) -> None:
        self.store, self.composite, self.scratch = store, composite, scratch

    @property
    def base(self) -> Path:
        """The base's disk, which the caller may take away."""
        return self.store.path(self.composite.base.disk)


@contextlib.contextmanager
def captured(conf: Any, files: Sequence[str] | None, wanted: Order,
             disk: Path) -> Iterator[Captured]:
    """Split a disk; waits for its turn on this host.

    :param conf: of this project
    :param files: where it was read from; None: the default places
    :raises SplitImageError: whatever keeps it from being split; nothing is left
    """
    options = conf.split
    root = Path(options.directory)
    with contextlib.closing(LocalStore(root, conf.store, max_parallel=options.max_parallel)
                            ) as host, host.turn(f"import {wanted.image}"), host.scratch() as work:
        worker = workers.Worker(capture, work / "gold", files, wanted, disk,
                                title=f"the split of image {wanted.image}")
        result(worker, options.timeout)
        with contextlib.closing(LocalStore(work / "gold", conf.store)) as store:
            found, = store.composites()
            yield Captured(store, msgspec.structs.replace(found, id=wanted.image), work)


def tidy(conf: Any) -> None:
    """Remove what splits have left behind that were killed with the service."""
    root = Path(conf.split.directory)
    try:
        if root.is_dir():
            LocalStore(root, conf.store).close()
    except exceptions.SplitImageError as error:
        LOG.warning("%s cannot be tidied: %s", root, error)


def result(worker: workers.Worker, timeout: float) -> None:
    """Wait for its end, by force after so many seconds; raises what it raises.

    :raises SplitTimeout:
    """
    late = threading.Event()

    def end() -> None:
        late.set()
        worker.end()

    timer = threading.Timer(timeout, end)
    timer.start()
    try:
        while (message := worker.receive()) is None or message.kind == workers.TOLD:
            pass
    finally:
        timer.cancel()
        worker.end()
        worker.join()
    if late.is_set() and message.kind != workers.DONE:
        raise exceptions.SplitTimeout(seconds=timeout)
    if message.kind == workers.FAILED:
        raise message.value


def capture(_: Any, root: Path, files: Sequence[str] | None, wanted: Order, disk: Path) -> None:
    """What runs in the process: a capture into a store of its own."""
    conf = configuration.load(files=list(files) if files else None)
    # The service's user may have no home to remember it in.
    known = root.parent.parent.parent / "kvm.json"

    def emulate() -> bool:
        return conf.assembly.accelerator == accelerator.TCG or (
            conf.assembly.accelerator == accelerator.AUTO
            and accelerator.choose(qemu=conf.launch.qemu, cache=known) == accelerator.TCG)

    found = disks.inspect(disk)
    if found.format != wanted.disk_format:
        raise exceptions.InvalidInput(
            what="disk_format", reason=f"the disk is {found.format}, not {wanted.disk_format}")
    with contextlib.closing(LocalStore(root, conf.store)) as store:
        service = ImageService(conf, store, emulate=emulate, owner=wanted.owner)
        service.capture(wanted.name, Gold(disk=disk, software=wanted.software),
                        public=wanted.public)


def find_python(configured: str | None) -> str:
    """The Python of this environment, for processes of one's own: where a web
    server has it within itself, ``sys.executable`` is that server, another one,
    or None.

    :param configured: what Glance is told to use, by default ``sys.executable``
    :raises ToolMissing: there is none
    """
    own = os.path.join(sys.prefix, "bin", "python3")
    places = (own, configured) if configured == sys.executable else (configured, own)
    for place in places:
        if place and Path(place).name.startswith("python") and os.access(place, os.X_OK):
            return place
    raise exceptions.ToolMissing(tool="python3", package="python3")


def use_python(configured: str | None) -> None:
    """Of all processes that multiprocessing starts here."""
    multiprocessing.set_executable(find_python(configured))


# -- in Glance ------------------------------------------------------------------------


def free_name(images: Images, wanted: Order) -> None:
    """:raises AlreadyExists: another composite of this owner has the name"""
    for image in holdings.of_role(images, properties.COMPOSITE, wanted.owner, name=wanted.name):
        if image["id"] != wanted.image and image["status"] not in holdings.UNFINISHED:
            raise exceptions.AlreadyExists(kind="composite", name=wanted.name,
                                           where=images.where)


def store(found: Captured, cloud: GlanceStore) -> dict[str, str]:
    """Store its parts and its manifest; returns the composite's properties."""
    gold, composite = found.store, found.composite
    for part_id in sorted({ref.id for ref in composite.parts.values()} | {composite.restore}):
        part = gold.part(part_id)
        if part.blob:
            with cloud.scratch() as scratch:
                os.link(gold.path(part.blob), scratch / "blob")
                cloud.adopt(scratch / "blob")
        cloud.add_part(part, gold.part_manifest(part_id), pending=True)
    cloud.put_manifest(gold.manifest(composite.base.manifest))
    return cloud.describe_composite(composite)


def retract(images: Images, image: str, owner: str) -> None:
    """Remove what was stored for an import that has failed, and that no
    composite has come to share."""
    stored = [each for role in (properties.PART, properties.MANIFEST)
              for each in holdings.of_role(images, role, owner, splitimage_for=image)]
    used: set[str] = set().union(*(holdings.parts_of(each) for each in holdings.of_role(
        images, properties.COMPOSITE, owner) if each["id"] != image))
    for each in stored:
        if each["id"] not in used:
            for gone in (each["id"], each.get("splitimage_manifest")):
                if gone:
                    images.discard(gone)


def told(error: SplitImageError, disk: Path, directory: Path) -> str:
    """The reason for the user, in one line that fits into a property, without
    paths of this host, which mean nothing to them.

    :param disk: that was to be split
    :param directory: of the work
    """
    text = str(error).replace(str(disk), "the gold disk")
    text = re.sub(re.escape(str(directory)) + r"[^\s:;,]*", "of the image service", text)
    if isinstance(error, exceptions.BadDisk | exceptions.AccountClash):
        advised = f"{text}; {error.advice}"
        text = advised if len(advised.encode()) <= properties.MAX_VALUE else text
    return fitting(text)


def fitting(text: str) -> str:
    """In one line, as much of it as a property takes."""
    return " ".join(text.split()).encode()[:properties.MAX_VALUE].decode(errors="ignore")

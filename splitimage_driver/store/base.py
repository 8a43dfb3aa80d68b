"""The contract of a store: where composites, parts and images live."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from splitimage_driver import exceptions
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import Composite
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import Part, PartManifest
from splitimage_driver.model.server import Server
from splitimage_driver.store.records import Finding, Need, QueueItem

#: Lists the servers that the project has in the cloud, on whatever host, those that
#: are shelved included: the id of each one's image, and its name. None: the cloud has
#: no servers. What it raises tells that it has, and that they are not known.
Servers = Callable[[], Iterable[tuple[str, str]] | None]


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What a store is opened with; each plugin takes of it what it has a use for.

    :ivar path: the directory of this host
    :ivar options: the group ``[store]``
    :ivar own: the group that has the plugin's name; None: there is none
    :ivar retention: the group ``[retention]``
    :ivar max_parallel: assemblies that may run at the same time
    :ivar max_scratch: bytes that these may need for their work; 0: any
    :ivar cloud: name of the one that is asked for; None: as ``own`` says
    :ivar connection: one of openstacksdk, where somebody is logged in already
    :ivar servers: who tells the cloud's servers; None: the connection
    """

    path: Path
    options: Any
    own: Any = None
    retention: Any = None
    max_parallel: int = 1
    max_scratch: int = 0
    cloud: str | None = None
    connection: Any = None
    servers: Servers | None = None


class Overtaken(Exception):
    """Another host makes the same image: that one is to be waited for."""


class Announced:
    """An image that is going to be made here.

    :ivar there: another host has made it meanwhile
    """

    there = False

    def check(self) -> None:
        """Before work that only one host is to do. :raises Overtaken:"""


class Store(abc.ABC):
    """Objects are immutable and content-addressed (disks, part blobs,
    manifests); records (composites, parts, images, servers) point at them
    and are written last, in one transaction: what a record refers to must be
    there, else writing it raises :class:`NotFound`.

    Every ``name_or_id`` look-up raises :class:`NotFound`; every delete
    raises :class:`InUse` while something refers to the object.
    """

    #: where it is, for messages
    location: str
    #: whose it is, where a login decides that; "": whoever acts says so
    project: str = ""

    @classmethod
    @abc.abstractmethod
    def opened(cls, opening: Opening) -> Self:
        """The store, ready for use."""

    def greet(self) -> str:
        """What answers here, for people; it has been asked something small.

        :raises SplitImageError: it cannot be used
        """
        return self.location

    # -- objects --------------------------------------------------------------

    @abc.abstractmethod
    def scratch(self) -> contextlib.AbstractContextManager[Path]:
        """A private directory on the store's own file system, gone at the
        end of the block; left behind by a killed process it is found and
        removed later (its owner holds a lock on it)."""

    @abc.abstractmethod
    def adopt(self, path: Path) -> str:
        """Take a finished file from :meth:`scratch` as an object, by sync and
        rename, without copying; returns its sha256. A file whose content is
        there already is dropped.

        :raises StoreFull: no room"""

    @abc.abstractmethod
    def path(self, digest: str) -> Path:
        """A local, read-only path of an object (fetched first by a store
        that is elsewhere).

        :raises NotFound: no such object"""

    def size(self, digest: str) -> int:
        """Bytes of an object, which is not fetched for that.

        :raises NotFound: no such object"""
        return self.path(digest).stat().st_size

    @abc.abstractmethod
    def is_local(self, digest: str) -> bool:
        """Whether :meth:`path` costs no transfer."""

    @abc.abstractmethod
    def verify(self, digest: str) -> None:
        """:raises DigestMismatch: the object's bytes are not its digest's"""

    def hold(self, digests: Iterable[str]) -> contextlib.AbstractContextManager[None]:
        """Keep objects for the length of the block, although the records
        that refer to them may be deleted meanwhile (a candidate's disk while
        it is copied).

        :raises NotFound: one is not there"""
        for digest in digests:
            if digest:
                self.path(digest)
        return contextlib.nullcontext()

    @abc.abstractmethod
    def put_manifest(self, manifest: Manifest) -> str:
        """Store a tree's manifest (compressed); returns its digest."""

    @abc.abstractmethod
    def manifest(self, digest: str) -> Manifest:
        """:raises NotFound: :raises DigestMismatch:"""

    # -- parts ----------------------------------------------------------------

    @abc.abstractmethod
    def add_part(self, part: Part, manifest: PartManifest, *, pending: bool = False) -> Part:
        """Record a part; met again (same id and owner) the first record stays
        and is returned.

        :param pending: it is for a composite that is recorded after it:
            nobody can delete it until then, and it goes again when the store
            is closed, or its user dies, without that
        :raises NotFound: its blob is not there
        """

    @abc.abstractmethod
    def part(self, name_or_id: str, *, owner: str | None = None) -> Part: ...

    @abc.abstractmethod
    def part_manifest(self, part_id: str) -> PartManifest: ...

    @abc.abstractmethod
    def parts(self, *, owner: str | None = None) -> list[Part]: ...

    @abc.abstractmethod
    def delete_part(self, name_or_id: str, *, owner: str | None = None) -> None:
        """:raises InUse: a composite refers to it, or an image or server has
            it as a file set
        :raises InvalidInput: several have that name, or several projects
            have it and ``owner`` is not given"""

    # -- composites -----------------------------------------------------------

    @abc.abstractmethod
    def save_composite(self, composite: Composite, *, replace: bool = False) -> Composite:
        """Record a composite; returns it as it is kept (another store may give
        a new one an id of its own).

        :raises AlreadyExists: the name is taken and not ``replace``
        """

    @abc.abstractmethod
    def composite(self, name_or_id: str) -> Composite: ...

    @abc.abstractmethod
    def composites(self) -> list[Composite]: ...

    def taken(self, name: str) -> bool:
        """Whether no new composite can have that name."""
        return any(composite.name == name for composite in self.composites())

    def composite_names(self, ids: Iterable[str]) -> dict[str, str]:
        """Names by id, as far as there are such composites."""
        found = {}
        for each in set(ids):
            with contextlib.suppress(exceptions.NotFound):
                found[each] = self.composite(each).name
        return found

    def default_parts(self, composite: str) -> tuple[str, ...]:
        """Names of the parts that who does not say any gets.

        :param composite: its id
        """
        return ()

    def usable(self, composite: Composite, owner: str) -> bool:
        """Whether a project may build on a composite that was found."""
        return composite.owner == owner or composite.public

    @abc.abstractmethod
    def delete_composite(self, name_or_id: str, *, parts: bool = False) -> None:
        """``parts``: with those of its parts that nothing else uses; file
        sets stay.

        :raises InUse: completed images or servers came from it"""

    def reconcile(self, composite: str | None = None) -> list[Finding]:
        """Bring who sees a composite's parts, and which of them there are, in
        line with it; returns what was done. Where parts are nothing by
        themselves nothing can be out of line.

        :param composite: its id, also of one that is gone; None: all of the
            project
        :raises NotPermitted: who asks may not do all of it; the rest is done
        """
        return []

    def discard_leftovers(self) -> list[str]:
        """Remove what processes of this host that were killed had begun elsewhere
        and not finished, of all projects; takes an administrator there. Of the
        project that acts that is done when the store is opened, and on this host
        always.

        :returns: ids of what is removed
        """
        return []

    # -- completed images -----------------------------------------------------

    def announced(self, image: Image) -> contextlib.AbstractContextManager[Announced]:
        """Tell, for the length of the block, that a completed image is going to be
        made here, so that it is made once wherever it is asked for. Where another
        host makes it, that one is waited for first, or taken over when it shows no
        sign of life. Left without :meth:`add_image` of the same id nothing is told
        any more.

        A store that is on this host alone needs no more than its locks.

        :param image: its disk need not be known yet
        """
        return contextlib.nullcontext(Announced())

    @abc.abstractmethod
    def add_image(self, image: Image) -> Image:
        """Record a completed image, then apply the retention limits of its
        owner (least recently used first, never one a server runs on, never
        the new one). The same owner and recipe again: the first stays."""

    @abc.abstractmethod
    def image(self, name_or_id: str) -> Image: ...

    @abc.abstractmethod
    def images(self, *, composite: str | None = None,
               owner: str | None = None) -> list[Image]:
        """``composite``: its id."""

    def near(self, composite: Composite, parts: Sequence[str], filesets: Sequence[str],
             limit: int) -> list[Image] | None:
        """The completed images that are nearest to a request, as somebody who
        knows all of them tells; None: nobody does.

        :param parts: names, dependency parts too
        :param filesets: ids
        """
        return None

    @abc.abstractmethod
    def find_recipe(self, recipe: str, *, owner: str, composite: Composite) -> Image | None:
        """The exact match that ``owner`` may use: an own one, or a public one
        of the composite's owner. Oldest first.

        :param composite: that is asked for
        """

    @abc.abstractmethod
    def touch_image(self, image_id: str) -> None:
        """Note that it was used now."""

    @abc.abstractmethod
    def delete_image(self, name_or_id: str) -> None:
        """:raises InUse: a server runs on it"""

    @abc.abstractmethod
    def prune_images(self, *, owner: str | None = None, max_age: float | None = None,
                     max_count: int | None = None, max_bytes: int | None = None) -> list[Image]:
        """Delete least recently used images over the limits (None: the
        configured limit, 0: no limit; limits hold per owner); returns the
        deleted ones."""

    # -- servers --------------------------------------------------------------

    @abc.abstractmethod
    def save_server(self, server: Server) -> None:
        """Insert or replace."""

    @abc.abstractmethod
    def server(self, name_or_id: str) -> Server: ...

    @abc.abstractmethod
    def servers(self) -> list[Server]: ...

    @abc.abstractmethod
    def delete_server(self, server_id: str) -> None:
        """Its record, then its directory with all in it."""

    @abc.abstractmethod
    def server_directory(self, server_id: str) -> Path:
        """Where a server's files go. The launcher makes it, after the record
        is saved: a directory without a record is what a crash has left."""

    # -- processes ------------------------------------------------------------

    @abc.abstractmethod
    def lock(self, name: str, *,
             timeout: float | None = None) -> contextlib.AbstractContextManager[None]:
        """Held between processes and threads; freed when the holder dies.
        Not re-entrant: asking again for what one holds waits for oneself.

        :param timeout: seconds to wait for a holder; None: [store]
            lock_timeout
        :raises LockTimeout: it was held all that time"""

    @abc.abstractmethod
    def turn(self, subject: str, need: Need | None = None,
             way: Callable[[bytes], float] | None = None,
             ) -> contextlib.AbstractContextManager[None]:
        """Wait in the assembly queue for one of [assembly] max_parallel
        places; the block runs in that place. Not re-entrant.

        They are given in order of arrival, but assemblies that are kin in the
        order in which they are best made from each other, see
        :mod:`splitimage_driver.planning.waiting`.

        :param need: of an assembly
        :param way: tells the seconds to make it from the image of another,
            given that one's changes; infinite: it cannot be. None: it is made
            from what is stored
        :raises Cancelled: taken out of the queue meanwhile
        :raises TooLarge: it needs more room than all of them may"""

    @abc.abstractmethod
    def queue(self, *, forecast: bool = False) -> list[QueueItem]:
        """Those that run, then those that wait.

        :param forecast: tell ``source`` and ``left`` of those that wait, too
        """

    @abc.abstractmethod
    def cancel(self, item_id: str) -> None:
        """Take a waiting item out. :raises NotFound: :raises InUse: it runs already"""

    # -- history --------------------------------------------------------------

    @abc.abstractmethod
    def record(self, event: str, facts: dict[str, object]) -> None:
        """Append to the history (launches: predicted and measured cost); the
        newest 10,000 of each event stay."""

    @abc.abstractmethod
    def history(self, event: str | None = None, *, limit: int = 100) -> list[dict[str, object]]:
        """Newest first; each with ``event`` and ``time``."""

    @abc.abstractmethod
    def check(self, *, repair: bool = False) -> Iterator[Finding]:
        """Verify every digest and reference, find leftovers; with ``repair``
        remove what nothing refers to."""

    @abc.abstractmethod
    def close(self) -> None: ...

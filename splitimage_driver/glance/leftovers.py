"""What Glance's file stores keep of an upload that never ended.

Such a store writes an upload to a file that is named by the image's id, and the
place is noted when all of it is there. Where the API is killed before that, or has
lost its database, the image stays what it was, ``saving`` above all. It is deleted
like any other, but Glance does not know of the file. So it goes here, once the
image has.

Another API process may be at the upload still. It finds at its end that the image
is gone, and takes back what it has stored; that the file is gone already is nothing
to it.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from oslo_log import log as logging

from splitimage_driver.model import properties
from splitimage_driver.store.glance import holdings
from splitimage_driver.store.glance.api import Description

if TYPE_CHECKING:
    from splitimage_driver.glance.transport import Application, Environ

LOG = logging.getLogger(__name__)
#: With the version where the pipeline is asked, without where the router is.
_IMAGE = re.compile(r"(?:/v2)?/images/([^/]+)/?\Z")
#: Seconds by which the clocks of API and store may differ.
_CLOCKS = 60


class Records(Protocol):
    """See :class:`splitimage_driver.glance.database.Database`."""

    def read(self, ids: Iterable[str]) -> Iterator[Description]: ...

    def is_gone(self, image: str) -> bool: ...


class Leftovers:
    """In front of an application: the file of an image that has never been
    complete goes with the image.

    :param directories: of the file stores
    """

    def __init__(self, application: Application, records: Records,
                 directories: Callable[[], Iterable[Path]]) -> None:
        self._application, self._records = application, records
        self._directories = directories

    def __call__(self, environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        try:
            image = self._unfinished(environ)
        except Exception:
            LOG.exception("it is not known what %s removes", environ.get("PATH_INFO"))
            image = None
        if image is None:
            return self._application(environ, start)
        told: list[str] = []

        def begin(status: str, *more: Any) -> Any:
            told[:] = [status]
            return start(status, *more)

        answer = self._application(environ, begin)
        if told and told[0].startswith("2"):
            try:
                self._remove(image)
            except Exception:
                LOG.exception("a file of image %s may be left in a store", image["id"])
        return answer

    def _unfinished(self, environ: Environ) -> Description | None:
        """The image that is to be deleted, if that has never been complete."""
        if environ.get("REQUEST_METHOD") != "DELETE":
            return None
        found = _IMAGE.match(environ.get("PATH_INFO", ""))
        image = next(self._records.read([found[1]]), None) if found else None
        return image if image is not None and image["status"] in holdings.UNFINISHED else None

    def _remove(self, image: Description) -> None:
        # As the database spells it, which may take other spellings for the same.
        name = str(image["id"])
        if not properties.IMAGE_ID.match(name) or not self._records.is_gone(name):
            return
        created = image["created_at"].replace(tzinfo=datetime.UTC).timestamp()
        for directory in self._directories():
            path = directory / name
            try:
                found = path.lstat()
                # What was there before the image is not of its upload: a client may
                # choose the id of an image that another cloud keeps there.
                if stat.S_ISREG(found.st_mode) and found.st_mtime >= created - _CLOCKS:
                    path.unlink()
                    LOG.info("removed %s, %d bytes of an upload that never ended", path,
                             found.st_size)
            except FileNotFoundError:
                continue
            except OSError as error:
                LOG.warning("what an upload that never ended has left stays: %s", error)


def directories(stores: Iterable[Any]) -> list[Path]:
    """Where Glance's file stores write to."""
    found = []
    for store in stores:
        conf = store.store_conf
        # Each with a priority after a colon, or without.
        several = [each.rsplit(":", 1)[0].strip() for each in conf.filesystem_store_datadirs or ()]
        found += [Path(each) for each in (conf.filesystem_store_datadir, *several) if each]
    return found


def _stores() -> Iterator[Any]:
    """Those that are files, as Glance has made them from its configuration; without
    its own for its work, of which it removes what is left itself."""
    import glance_store
    from oslo_config import cfg
    backends = cfg.CONF.enabled_backends
    # What could not be made has no file either.
    with contextlib.suppress(glance_store.UnknownScheme):
        if not backends:
            yield glance_store.get_store_from_scheme("file")
    # A list: to be asked for a store adds its own to the others.
    for name, kind in list((backends or {}).items()):
        if kind == "file" and not name.startswith("os_glance_"):
            with contextlib.suppress(glance_store.UnknownScheme, KeyError):
                yield glance_store.get_store_from_store_identifier(name)


def over(application: Application) -> Leftovers:
    """In front of an application of the Glance that this runs in."""
    from splitimage_driver.glance.database import Database
    return Leftovers(application, Database(), lambda: directories(_stores()))

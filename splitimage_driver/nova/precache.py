"""Images that an administrator has fetched to hosts before anybody needs them."""

from __future__ import annotations

import contextlib
from typing import Any

from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.application import Application
from splitimage_driver.model import properties
from splitimage_driver.store.glance import holdings

LOG = logging.getLogger(__name__)


def cache(application: Application, image: str) -> bool | None:
    """Fetch all that servers of a composite are put together from.

    Whatever the administrator sees may be fetched: who gets at it later is decided
    then, by what the image service shows to them.

    :returns: whether anything had to be fetched; None: it is no composite, and for
        Nova itself to fetch
    :raises SplitImageError: it cannot be fetched
    """
    store: Any = application.store
    try:
        found = store.images_api.get(image)
    except exceptions.NotFound:
        return None
    role = "" if holdings.foreign(found) else found.get("splitimage_role")
    if role == properties.COMPLETED:
        with contextlib.suppress(exceptions.BadImage):  # it only says that it is one
            store.places.used.completed(store.reader.image(found))
    if role != properties.COMPOSITE:
        return None
    known = store.reader.known(found)
    composite = store.places.use_composite(known)
    parts = [known.parts[link.digest]
             for link in (*known.links.parts.values(), known.links.restore)]
    contents = {composite.base.disk, *(part.blob for part in parts if part.blob)}
    missing = [digest for digest in contents if not store.is_local(digest)]
    with store.hold(contents):
        store.reader.map(store.places.tree, [part.id for part in parts])
    LOG.info("composite %s is on this host, %d of %d contents were fetched", image, len(missing),
             len(contents))
    return bool(missing)

"""Finding what the user names, as far as the project may see it."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from splitimage_driver import exceptions

if TYPE_CHECKING:
    from splitimage_driver.application import Application
    from splitimage_driver.model.candidate import Image
    from splitimage_driver.model.composite import Composite
    from splitimage_driver.model.part import Part

#: Whole; it names a composite that is not there any more, too.
COMPOSITE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
#: As tables show it.
_START_OF_ID = re.compile(r"[0-9a-f-]{8,63}\Z")


def part(application: Application, given: str, *, kind: str | None = None) -> Part:
    """A part of the project by its name, its id, or the start of its id as
    tables show it.

    :param kind: among the parts of this kind only
    :raises NotFound:
    :raises InvalidInput: several have that name
    """
    store, owner = application.store, application.project
    # Most often it is one that the store finds by itself; a list may be long.
    with contextlib.suppress(exceptions.NotFound, exceptions.InvalidInput):
        one = store.part(given, owner=owner)
        if kind in (None, one.kind):
            return one
    parts = [p for p in store.parts(owner=owner) if kind in (None, p.kind)]
    found = ([p for p in parts if p.id == given] or [p for p in parts if p.name == given]
             or [p for p in parts if _START_OF_ID.match(given) and p.id.startswith(given)])
    if not found:
        raise exceptions.NotFound(kind="part", name=given, where=application.store.location)
    if len(found) > 1:
        raise exceptions.ambiguous("part", given, (p.id[:12] for p in found))
    return found[0]


def composite(application: Application, given: str) -> Composite:
    """One that the project may use.

    :raises NotFound:
    """
    found = application.store.composite(given)
    if not application.store.usable(found, application.project):
        raise exceptions.NotFound(kind="composite", name=given,
                                  where=application.store.location)
    return found


def image(application: Application, given: str) -> Image:
    """A completed image of the project by its name, its id, or the start of
    its id as tables show it.

    :raises NotFound:
    :raises InvalidInput: several have that name
    """
    images = application.store.images(owner=application.project)
    found = ([i for i in images if i.id == given] or [i for i in images if i.name == given]
             or [i for i in images if _START_OF_ID.match(given) and i.id.startswith(given)])
    if not found:
        raise exceptions.NotFound(kind="image", name=given, where=application.store.location)
    if len(found) > 1:
        raise exceptions.ambiguous("image", given, (i.id for i in found))
    return found[0]

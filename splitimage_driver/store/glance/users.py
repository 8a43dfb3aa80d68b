"""Servers that have an image as theirs: those of this host, and those of the cloud's
compute service, wherever they run."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from splitimage_driver import exceptions
from splitimage_driver.model.candidate import Image
from splitimage_driver.store.base import Servers
from splitimage_driver.store.glance import api
from splitimage_driver.store.glance.api import Images

#: By id of an image, names of its servers.
Cloud = dict[str, list[str]]


class Users:
    """:param here: servers of this host that run on an image
    :param servers: of the cloud; None: nobody is asked
    """

    def __init__(self, images: Images, here: Callable[[Image], list[str]],
                 servers: Servers | None) -> None:
        self.images, self._here, self._servers = images, here, servers

    def look(self) -> Look:
        """As of now, by one listing of the project's servers.

        :raises SplitImageError: the cloud has them and does not tell
        """
        if self._servers is None:
            return Look(self._here, None)
        try:
            listed: Iterable[tuple[str, str]] | None = self._servers()
            found: Cloud | None = None
            if listed is not None:
                found = {}
                for image, name in listed:
                    found.setdefault(image, []).append(name)
        except exceptions.SplitImageError:
            raise
        except Exception as error:  # whoever gave the function knows what it raises
            raise exceptions.CloudFailed(where=self.images.where, what="list the servers",
                                         reason=str(error) or type(error).__name__) from error
        return Look(self._here, found)


class Look:
    def __init__(self, here: Callable[[Image], list[str]], cloud: Cloud | None) -> None:
        self._here, self._cloud = here, cloud

    def of(self, image: Image) -> list[str]:
        """The servers that are known, as ``server NAME``."""
        cloud = [] if self._cloud is None else self._cloud.get(image.id, [])
        return list(dict.fromkeys([*self._here(image),
                                   *(f"server {name}" for name in sorted(cloud))]))

    def may_go(self, image: Image, visibility: str) -> bool:
        """Whether it may be deleted without being asked for: nobody shows the
        servers of other projects, which may have one that they can see."""
        return not self.of(image) and (self._cloud is None or visibility == api.PRIVATE)

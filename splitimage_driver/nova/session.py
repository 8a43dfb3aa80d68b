"""Nova's request contexts as logins of this project's store.

What is done for a server is done with the token of whoever asked for it, so that
the image service decides what that project sees. Nova adds its own token
(``[service_user]``), with which the other one is good beyond its expiry.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nova.conf
from keystoneauth1 import loading
from nova import objects, service_auth, utils
from openstack.connection import Connection

from splitimage_driver import conf as configuration
from splitimage_driver.application import Application
from splitimage_driver.conf import hosted
from splitimage_driver.store.base import Servers

CONF = nova.conf.CONF
#: Of nova.conf: how the image service is reached, and Nova's own login.
_GROUP, _OWN = "glance", "service_user"
#: Some catalogues have it, some have not.
_VERSION = re.compile(r"(/v\d+(\.\d+)?)?/*\Z")


class Sessions:
    """:ivar path: what this host keeps, of all projects; who may see what of it
        is asked of the image service each time
    """

    def __init__(self) -> None:
        self.files = hosted.files(CONF)
        self.conf = configuration.load(files=self.files)
        self.path = Path(self.conf.store.path or Path(CONF.state_path) / "splitimage")

    @contextlib.contextmanager
    def of(self, context: Any) -> Iterator[Application]:
        """Acting as whoever made a request."""
        auth = service_auth.get_service_user_token_auth_plugin(context)
        # What a context has of the login does not tell whose it is.
        auth.get_project_id = lambda *_, **__: context.project_id
        compute = self._compute
        listed = None if compute else functools.partial(_servers, context)
        with self._opened(auth, compute_endpoint_override=compute, servers=listed) as application:
            yield application

    @contextlib.contextmanager
    def own(self) -> Iterator[Application | None]:
        """Acting as Nova itself; None: it has no login of its own."""
        auth = service_auth.get_service_auth_plugin(_OWN)
        if auth is None:
            yield None
            return
        with self._opened(auth) as application:
            yield application

    @contextlib.contextmanager
    def _opened(self, auth: Any, *, servers: Servers | None = None,
                **endpoints: Any) -> Iterator[Application]:
        session = loading.load_session_from_conf_options(CONF, _GROUP, auth=auth)
        # As Nova itself finds it.
        found = utils.get_ksa_adapter("image", auth, session).get_endpoint()
        connection = Connection(session=session,
                                image_endpoint_override=_VERSION.sub("/", found), **endpoints)
        application = Application(self.path, self.files, connection=connection, servers=servers)
        try:
            yield application
        finally:
            application.close()

    @functools.cached_property
    def _compute(self) -> str | None:
        """Where Nova's own API is: what a context has of the catalogue has it
        not. None: Nova has no login of its own to find it with."""
        auth = service_auth.get_service_auth_plugin(_OWN)
        if auth is None:
            return None
        session = loading.load_session_from_conf_options(CONF, _OWN, auth=auth)
        found: str | None = session.get_endpoint(
            service_type="compute", interface=["internal", "public"],
            region_name=CONF.glance.region_name)
        return found


def _servers(context: Any) -> list[tuple[str, str]]:
    """Of the context's project, in this cell."""
    found = objects.InstanceList.get_by_filters(
        context, {"project_id": context.project_id, "deleted": False}, expected_attrs=[])
    return [(server.image_ref, server.display_name) for server in found if server.image_ref]

"""Carries requests to a cloud, logged in by openstacksdk."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import keystoneauth1.exceptions
import openstack
import openstack.exceptions
import requests
import urllib3.exceptions

from splitimage_driver import exceptions
from splitimage_driver.store.glance import api
from splitimage_driver.store.glance.api import Answer

#: What ends a connection, at whichever layer.
_BROKEN = (keystoneauth1.exceptions.ConnectionError, requests.exceptions.ConnectionError,
           requests.exceptions.ChunkedEncodingError, requests.exceptions.Timeout,
           urllib3.exceptions.HTTPError, OSError)
#: What is the user's own; else nobody is at the place that was given, or the
#: catalogue has none, or nothing there that is understood.
_REFUSED = (keystoneauth1.exceptions.Unauthorized, keystoneauth1.exceptions.Forbidden,
            keystoneauth1.exceptions.AuthorizationFailure,
            keystoneauth1.exceptions.AuthPluginException)
#: What openstacksdk calls a cloud that has no name in ``clouds.yaml``.
_UNNAMED = ("", "defaults", "envvars")
_LISTING = "list the servers"
#: In one request; the compute service has a limit of its own.
_SERVERS = 1000
_POOL = re.compile(r":? *HTTPS?ConnectionPool\(")
_CAUSE = re.compile(r"\[Errno -?\d+\] ([^'\")]+)")


def _told(error: Exception) -> str:
    """What it says, without the layers that only its author knows."""
    whole = str(error)
    first = _POOL.split(whole)[0]
    cause = _CAUSE.search(whole)
    return f"{first} ({cause[1]})" if cause and first != whole else first


class _Answer:
    def __init__(self, response: requests.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers: Mapping[str, str] = {
            name.lower(): value for name, value in response.headers.items()}

    def body(self) -> bytes:
        try:
            return self._response.content
        except _BROKEN as error:
            raise ConnectionError(_told(error)) from error

    def chunks(self, size: int) -> Iterator[bytes]:
        try:
            yield from self._response.iter_content(size)
        except _BROKEN as error:
            raise ConnectionError(_told(error)) from error

    def close(self) -> None:
        self._response.close()


class HttpTransport:
    """:param connection: to the cloud
    :param timeout: seconds without a byte after which a connection counts as
        broken
    :raises CloudUnreachable: :raises NotPermitted: nobody can log in
    """

    def __init__(self, connection: Any, timeout: float) -> None:
        self._connection, self._timeout = connection, timeout
        name = connection.config.name
        if name in _UNNAMED:
            name = connection.config.config.get("auth", {}).get("auth_url", "")
            name = name and "at " + name
        # A service that acts for somebody else has a session and no name for it.
        self.where = f"cloud {name}" if name else "the image service"
        try:
            project = connection.current_project_id
            self._adapter = connection.image
        except _BROKEN as error:
            raise exceptions.CloudUnreachable(where=self.where, reason=_told(error)) from error
        except (keystoneauth1.exceptions.ClientException,
                openstack.exceptions.SDKException) as error:
            raise self._denied(error) from error
        if not project:
            raise exceptions.InvalidInput(what=self.where, reason="the login names no project")
        self.project = str(project)

    def _denied(self, error: Exception, what: str = "log in") -> exceptions.SplitImageError:
        if isinstance(error, _REFUSED):
            return exceptions.NotPermitted(where=self.where, what=what, reason=_told(error))
        if isinstance(error, keystoneauth1.exceptions.HttpError):
            return exceptions.CloudFailed(where=self.where, what=what, reason=_told(error))
        return exceptions.CloudUnreachable(where=self.where, reason=_told(error))

    def request(self, method: str, path: str, *, headers: Mapping[str, str],
                body: bytes | BinaryIO | None = None) -> Answer:
        whole = body is None or isinstance(body, bytes)
        send = functools.partial(
            self._adapter.request, path, method, headers=dict(headers), data=body,
            raise_exc=False, stream=True, timeout=self._timeout, connect_retries=0,
            status_code_retries=0, allow_reauth=whole)
        try:
            response = send()
            if response.status_code == 401:
                response.close()
                if not whole:
                    # What was read of the body cannot be sent again: whoever has it
                    # begins anew, with a new login.
                    self._adapter.invalidate()
                    raise ConnectionError("the login has expired")
                # Of several threads that meet an expired login only the first renews
                # it; the others are told that there is none.
                response = send()
            return _Answer(response)
        except _BROKEN as error:
            raise ConnectionError(_told(error)) from error
        except (keystoneauth1.exceptions.ClientException,
                openstack.exceptions.SDKException) as error:
            raise self._denied(error) from error

    # -- the compute service ----------------------------------------------------------

    def servers(self) -> list[tuple[str, str]] | None:
        """See :data:`splitimage_driver.store.base.Servers`.

        :raises CloudUnreachable: :raises NotPermitted: :raises CloudFailed:
        """
        found: list[tuple[str, str]] = []
        try:
            if not self._connection.config.get_session_endpoint("compute"):
                return None
            page = self._servers("")
            while page:
                found += [(str(each["image"]["id"]), str(each.get("name") or each["id"]))
                          for each in page if each.get("image")]  # else it boots from a volume
                page = self._servers(page[-1]["id"])
        except _BROKEN as error:
            raise exceptions.CloudUnreachable(where=self.where, reason=_told(error)) from error
        except (keystoneauth1.exceptions.ClientException,
                openstack.exceptions.SDKException) as error:
            raise self._denied(error, _LISTING) from error
        except (LookupError, TypeError, ValueError) as error:
            raise exceptions.CloudFailed(where=self.where, what=_LISTING,
                                         reason=f"its answer is no list: {error}") from error
        return found

    def _servers(self, marker: str) -> list[dict[str, Any]]:
        """Those after this one."""
        answer = self._connection.compute.get(
            "/servers/detail", params={"limit": _SERVERS} | ({"marker": marker} if marker else {}),
            timeout=self._timeout, raise_exc=False)
        if answer.status_code in (401, 403):
            raise exceptions.NotPermitted(where=self.where, what=_LISTING,
                                          reason=api.said(answer.content))
        if answer.status_code != 200:
            raise exceptions.CloudFailed(
                where=self.where, what=_LISTING,
                reason=api.said(answer.content) or f"HTTP status {answer.status_code}")
        listed: list[dict[str, Any]] = answer.json()["servers"]
        return listed


def connect(name: str | None, *, timeout: float) -> HttpTransport:
    """:param name: of a cloud in ``clouds.yaml``; None: as the environment says
    :raises InvalidInput: there is no such cloud, or something is missing of it
    :raises CloudUnreachable: :raises NotPermitted: nobody can log in
    """
    try:
        connection = openstack.connect(cloud=name) if name else openstack.connect()
    except (openstack.exceptions.SDKException, keystoneauth1.exceptions.ClientException,
            OSError) as error:
        raise exceptions.InvalidInput(
            what=f"cloud {name}" if name else "the cloud of the environment",
            reason=_told(error)) from error
    return HttpTransport(connection, timeout)


def settings(connection: Any) -> dict[str, Any]:
    """What :func:`connection` logs in again with, in another process: with all
    its secrets."""
    # All that its name in clouds.yaml stands for is in it already.
    return {key: copy.deepcopy(value) for key, value in connection.config.config.items()
            if key not in ("cloud", "profile")}


def connection(found: Mapping[str, Any]) -> Any:
    """:param found: see :func:`settings`"""
    return openstack.connect(load_yaml_config=False, load_envvars=False, **found)

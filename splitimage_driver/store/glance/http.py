"""Carries requests to a cloud, logged in by openstacksdk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import keystoneauth1.exceptions
import openstack
import openstack.exceptions
import requests
import urllib3.exceptions

from splitimage_driver import exceptions

#: What ends a connection, at whichever layer.
_BROKEN = (keystoneauth1.exceptions.ConnectionError, requests.exceptions.ConnectionError,
           requests.exceptions.ChunkedEncodingError, requests.exceptions.Timeout,
           urllib3.exceptions.HTTPError, OSError)


class _Answer:
    def __init__(self, response: requests.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers = {name.lower(): value for name, value in response.headers.items()}

    def body(self) -> bytes:
        try:
            return self._response.content
        except _BROKEN as error:
            raise ConnectionError(str(error)) from error

    def chunks(self, size: int) -> Iterator[bytes]:
        try:
            yield from self._response.iter_content(size)
        except _BROKEN as error:
            raise ConnectionError(str(error)) from error

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
        self.where = f"cloud {connection.config.name or connection.config.get_region_name('image')}"
        try:
            self.project = str(connection.current_project_id)
            self._adapter = connection.image
        except _BROKEN as error:
            raise exceptions.CloudUnreachable(where=self.where, reason=str(error)) from error
        except (keystoneauth1.exceptions.ClientException,
                openstack.exceptions.SDKException) as error:
            raise self._denied(error) from error

    def _denied(self, error: Exception) -> exceptions.SplitImageError:
        if isinstance(error, keystoneauth1.exceptions.ConnectFailure |
                      keystoneauth1.exceptions.DiscoveryFailure):
            return exceptions.CloudUnreachable(where=self.where, reason=str(error))
        return exceptions.NotPermitted(where=self.where, what="log in", reason=str(error))

    def request(self, method: str, path: str, *, headers: Mapping[str, str],
                body: bytes | BinaryIO | None = None) -> _Answer:
        try:
            return _Answer(self._adapter.request(
                path, method, headers=dict(headers), data=body, raise_exc=False, stream=True,
                timeout=self._timeout, connect_retries=0, status_code_retries=0))
        except _BROKEN as error:
            raise ConnectionError(str(error)) from error
        except (keystoneauth1.exceptions.ClientException,
                openstack.exceptions.SDKException) as error:
            raise self._denied(error) from error


def connect(name: str | None, *, timeout: float) -> HttpTransport:
    """:param name: of a cloud in ``clouds.yaml``; None: as the environment says
    :raises InvalidInput: there is no such cloud
    """
    try:
        connection = openstack.connect(cloud=name) if name else openstack.connect()
    except openstack.exceptions.SDKException as error:
        raise exceptions.InvalidInput(what=f"cloud {name or 'of the environment'}",
                                      reason=str(error)) from error
    return HttpTransport(connection, timeout)

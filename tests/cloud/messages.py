"""RabbitMQ, through which Nova's services speak to each other."""

from __future__ import annotations

import contextlib
import shutil
import socket
from pathlib import Path

from tests.cloud import HOST, CloudError
from tests.cloud.service import Service, Site

NAME = "messages"
_USER = "cloud"
#: Where nodes find each other, and talk.
_PORTS = (f"{NAME}-names", f"{NAME}-nodes")
#: The distribution's own command changes to a user of its own.
_PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
#: A client says which protocol it speaks; the first byte of the answer is the
#: kind of a frame.
_GREETING, _METHOD = b"AMQP\x00\x00\x09\x01", b"\x01"


def url(site: Site) -> str:
    """``transport_url``."""
    return f"rabbit://{_USER}:{site.state.password(NAME)}@{HOST}:{site.state.port(NAME)}/"


class Messages(Service):
    stage = 0
    prepare_key = "1"

    def __init__(self, site: Site) -> None:
        super().__init__(site, NAME)
        self._data = self.directory / "data"

    @property
    def url(self) -> str:
        return f"amqp://{HOST}:{self.site.state.port(NAME)}"

    def ports(self) -> tuple[str, ...]:
        return (NAME, *_PORTS)

    def files(self) -> dict[str, str]:
        return {"rabbitmq.conf": "".join(f"{option} = {value}\n" for option, value in {
            "listeners.tcp.1": f"{HOST}:{self.site.state.port(NAME)}",
            "default_user": _USER, "default_pass": self.site.state.password(NAME),
            "log.console": "true", "log.console.level": "warning", "log.file": "false",
            # What the disk has is the business of whoever fills it.
            "disk_free_limit.absolute": "50MB"}.items()),
            "enabled_plugins": "[].\n", "rabbitmq-env.conf": ""}

    def words(self) -> list[str | Path]:
        if not _PROGRAM.exists():
            raise CloudError("rabbitmq-server is missing: ./run cloud installs what the cloud "
                             "needs")
        return [_PROGRAM]

    def variables(self) -> dict[str, str]:
        names, nodes = (str(self.site.state.port(name)) for name in _PORTS)
        return {"HOME": str(self.directory), "ERL_EPMD_PORT": names, "ERL_EPMD_ADDRESS": HOST,
                "RABBITMQ_DIST_PORT": nodes,
                "RABBITMQ_NODENAME": f"{self.site.state.mark}@localhost",
                "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
                "RABBITMQ_CONF_ENV_FILE": str(self.directory / "rabbitmq-env.conf"),
                "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
                "RABBITMQ_MNESIA_BASE": str(self._data),
                "RABBITMQ_LOG_BASE": str(self.directory / "logs"),
                # One thread for each of the host's processors would be too many.
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS":
                    "+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}"}

    def prepare(self) -> None:
        if self._data.exists():  # its name of before is in there
            shutil.rmtree(self._data)

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(
                (HOST, self.site.state.port(NAME)), 10) as peer:
            peer.sendall(_GREETING)
            return peer.recv(1) == _METHOD
        return False

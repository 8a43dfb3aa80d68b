"""What is to be the same the next time: ports, passwords, settings."""

from __future__ import annotations

import os
import random
import secrets
import socket
import tempfile
import uuid
from pathlib import Path

import msgspec

from tests.cloud import HOST, CloudError

#: File of a service's configuration to section to option to value. Laid over
#: what the service itself writes there; an empty value of an option takes it out.
Overrides = dict[str, dict[str, dict[str, str]]]
#: Below what the kernel hands out for outgoing connections.
_PORTS = range(20000, 30000)
#: Of this project, as the setting ``compute_driver``.
SPLITIMAGE = "splitimage"


class Settings(msgspec.Struct, frozen=True):
    """What whoever starts the cloud may choose.

    :ivar hosts: compute hosts; 0: Keystone and Glance only
    :ivar compute_driver: :data:`SPLITIMAGE`, or "stock" for Nova's own
    :ivar glance_apis: Glance APIs over one database, each with a port of its own
    :ivar glance_workers: worker processes of each of them
    :ivar overrides: by name of a configuration file, for all who read it
    :ivar environment: added to that of every service
    """

    glance_apis: int = 1
    glance_workers: int = 1
    overrides: Overrides = {}
    environment: dict[str, str] = {}
    hosts: int = 0
    compute_driver: str = SPLITIMAGE

    @property
    def with_driver(self) -> bool:
        return self.compute_driver == SPLITIMAGE


class _Kept(msgspec.Struct):
    mark: str = msgspec.field(default_factory=lambda: str(uuid.uuid4()))
    ports: dict[str, int] = {}
    network: str = ""
    passwords: dict[str, str] = {}
    settings: Settings = msgspec.field(default_factory=Settings)
    done: dict[str, str] = {}


class State:
    """``state.json`` in the cloud's directory, written at every change.

    :ivar mark: names this cloud in the environment of its processes
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept = _Kept()
        if path.exists():
            try:
                self._kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
            except msgspec.MsgspecError as error:
                raise CloudError(f"{path} is damaged ({error}): remove {path.parent}") from error

    @property
    def mark(self) -> str:
        return self._kept.mark

    @property
    def settings(self) -> Settings:
        return self._kept.settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self._kept.settings = settings
        self.save()

    def password(self, name: str) -> str:
        """Made up at the first call."""
        if name not in self._kept.passwords:
            self._kept.passwords[name] = secrets.token_urlsafe(18)
            self.save()
        return self._kept.passwords[name]

    def port(self, name: str) -> int:
        """Chosen at the first call, among those that nobody listens on."""
        if name not in self._kept.ports:
            taken = set(self._kept.ports.values())
            self._kept.ports[name] = next(
                port for port in random.sample(_PORTS, len(_PORTS))
                if port not in taken and is_free(port))
            self.save()
        return self._kept.ports[name]

    def choose_port(self, name: str, port: int | None = None) -> None:
        """Another port than before: this one, or any free one."""
        self._kept.ports.pop(name, None)
        if port is not None:
            self._kept.ports[name] = port
            self.save()
        self.port(name)

    def address(self, number: int) -> str:
        """Of a compute host: all of 127.0.0.0/8 is this machine, and a piece of it
        is this cloud's, where libvirt has its usual ports."""
        if not self._kept.network:
            self._kept.network = f"127.{random.randint(64, 191)}.{random.randint(0, 255)}"
            self.save()
        return f"{self._kept.network}.{number}"

    def is_done(self, step: str, key: str) -> bool:
        return self._kept.done.get(step) == key

    def set_done(self, step: str, key: str) -> None:
        """A step need not be made again as long as ``key`` is the same."""
        self._kept.done[step] = key
        self.save()

    def forget(self, step: str) -> None:
        if self._kept.done.pop(step, None) is not None:
            self.save()

    def forget_all(self) -> None:
        self._kept.done.clear()
        self.save()

    def save(self) -> None:
        write_private(self.path, msgspec.json.format(msgspec.json.encode(self._kept)).decode())


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def write_private(path: Path, text: str) -> None:
    """A file for its owner only, there as a whole or not at all."""
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with open(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(beside).replace(path)

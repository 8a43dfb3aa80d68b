"""What the services of the cloud have in common."""

from __future__ import annotations

import abc
import functools
import hashlib
import http.client
import json
import shutil
import subprocess
import time
import urllib.parse
from collections.abc import Collection, Mapping, Sequence
from email.message import Message
from pathlib import Path
from typing import NamedTuple

from splitimage_driver.launch import accelerator
from tests.cloud import HOST, ROOT, CloudError, config
from tests.cloud.daemon import Daemon, clean_environment, until
from tests.cloud.packages import Packages
from tests.cloud.state import State, is_free, write_private

REGION = "RegionOne"
DATABASE = "database"
_KVM = "hardware virtualisation"
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Endpoint(NamedTuple):
    """An entry of Keystone's catalogue."""

    kind: str
    name: str
    url: str


class Site:
    """What all services of one cloud share.

    :ivar catalogue: what Keystone shall tell of, itself left out
    :ivar token: the last one that Keystone gave for asking, and when
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.packages = Packages(directory / "venv")
        self.state = State(directory / "state.json")
        self.catalogue: list[Endpoint] = []
        self.token: tuple[str, float] | None = None

    def url(self, name: str) -> str:
        return f"http://{HOST}:{self.state.port(name)}"

    def database(self, name: str, user: str = "") -> str:
        """For ``[database] connection``.

        :param user: "": of the same name
        """
        user = user or name
        return (f"mysql+pymysql://{user}:{self.database_password(user)}@{HOST}:"
                f"{self.state.port(DATABASE)}/{name}")

    def database_password(self, name: str) -> str:
        return self.state.password(f"{DATABASE}-{name}")

    @property
    def has_kvm(self) -> bool:
        """Asked once while it is up: compute hosts do not change what they are."""
        for answer in ("yes", "no"):
            if self.state.is_done(_KVM, answer):
                return answer == "yes"
        works = accelerator.kvm_works()
        self.state.set_done(_KVM, "yes" if works else "no")
        return works

    def forget_kvm(self) -> None:
        self.state.forget(_KVM)

    def driver_key(self) -> str:
        """The same as long as this project's sources are."""
        digest = hashlib.sha256()
        for path in sorted(path for place in ("splitimage_driver", "nova")
                           for path in (ROOT / place).rglob("*.py")):
            told = path.stat()
            digest.update(f"{path} {told.st_size} {told.st_mtime_ns}\n".encode())
        return digest.hexdigest()


class Service(abc.ABC):
    """A daemon with a directory, configuration files and an API to ask whether
    it is ready. Everything may be called again at any time.

    :ivar loads_driver: it runs code of this project
    :ivar stage: it starts when those of lower stages are ready
    :ivar first: the others of its stage are prepared with it, and start after it
    :ivar kind: what it is in Keystone's catalogue; "": not there
    """

    stage = 2
    first = False
    loads_driver = False
    kind = ""
    #: Given to it on a host that does much else.
    patience = 300.0

    def __init__(self, site: Site, name: str) -> None:
        self.site, self.name = site, name
        self.directory = site.directory / name
        self.daemon = Daemon(self.directory, site.state.mark)

    # -- what a service is -----------------------------------------------------------

    @abc.abstractmethod
    def files(self) -> dict[str, str]:
        """Its configuration, by name of the file."""

    @abc.abstractmethod
    def words(self) -> list[str | Path]:
        """The command that it is."""

    def variables(self) -> dict[str, str]:
        """Its own, in the environment."""
        return {}

    @property
    def prepare_key(self) -> str:
        return self.site.packages.key

    @abc.abstractmethod
    def prepare(self) -> None:
        """What has to be there before it starts: done once, and again whenever
        ``prepare_key`` is another."""

    @abc.abstractmethod
    def is_ready(self) -> bool:
        """Asks its API."""

    def settle(self) -> None:  # noqa: B027 - most have nothing to do
        """What is done through its API, once it is ready."""

    # -- what is the same for all ------------------------------------------------------

    @property
    def url(self) -> str:
        return self.site.url(self.name)

    @property
    def endpoint(self) -> str:
        """In the catalogue."""
        return self.url

    def ports(self) -> tuple[str, ...]:
        """Names of those that it listens on."""
        return (self.name,)

    def key(self) -> str:
        """The same as long as there is no reason to start it again."""
        told = [self.files(), list(map(str, self.words())), self.variables(),
                self.site.state.settings.environment, self.site.packages.key,
                self.site.driver_key() if self.loads_driver else ""]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def is_current(self) -> bool:
        """It runs, as it would be started now."""
        return (self.daemon.pid is not None
                and self.site.state.is_done(f"{self.name} started", self.key()))

    def ensure_port(self) -> None:
        """Whoever took its port while it was down keeps it."""
        if self.daemon.pid is None:
            self.daemon.stop()  # children of a master that was killed have the port
            for name in self.ports():
                # What was killed a moment ago may still be about to let go of it.
                if not until(functools.partial(self._is_free, name), 5):
                    self.site.state.choose_port(name)

    def _is_free(self, name: str) -> bool:
        return is_free(self.site.state.port(name))

    def configure(self) -> None:
        for name, text in self.files().items():
            write_private(self.directory / name, text)

    def is_prepared(self) -> bool:
        return self.site.state.is_done(f"{self.name} prepared", self.prepare_key)

    def set_prepared(self) -> None:
        self.site.state.set_done(f"{self.name} prepared", self.prepare_key)

    def start(self) -> None:
        self.site.state.forget(f"{self.name} started")
        self.daemon.start(self.words(), self.environment())
        self.site.state.set_done(f"{self.name} started", self.key())

    def wait(self, seconds: float | None = None) -> None:
        """:raises CloudError: it has died, or is not ready in time"""
        seconds = self.patience if seconds is None else seconds
        end = time.monotonic() + seconds
        while not self.is_ready():
            if self.daemon.pid is None:
                raise CloudError(f"{self.name} has ended, see {self.daemon.log}",
                                 self.daemon.tail())
            if time.monotonic() > end:
                raise CloudError(f"{self.name} is not ready after {seconds:.0f} s, see "
                                 f"{self.daemon.log}", self.daemon.tail())
            time.sleep(0.2)

    def stop(self) -> bool:
        """:returns: whether there was something to stop"""
        self.forget()
        return self.end()

    def forget(self) -> None:
        """How it was started."""
        self.site.state.forget(f"{self.name} started")

    def end(self) -> bool:
        """:meth:`stop` without the state, which is for one thread only."""
        return self.daemon.stop()

    def environment(self) -> dict[str, str]:
        return (clean_environment() | {"PATH": self.path()} | self.variables()
                | self.site.state.settings.environment)

    def path(self) -> str:
        """Where it finds programs."""
        return f"{self.site.packages.directory / 'bin'}:{_SYSTEM_PATH}"

    def run(self, program: Path, *words: str | Path,
            variables: Mapping[str, str] | None = None, ok: Collection[int] = (0,)) -> None:
        """One of its management commands; the output goes to its log.

        :param ok: how it may end
        :param variables: what is not for the command line, which everybody sees
        """
        with self.daemon.log.open("ab") as log:
            done = subprocess.run([program, *words],
                                  stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                  env={**self.environment(), **(variables or {})},
                                  umask=0o077, check=False)
        if done.returncode not in ok:
            raise CloudError(f"{self.name}: {program.name} has failed, see "
                             f"{self.daemon.log}", self.daemon.tail())

    def ini(self, name: str, sections: config.Sections, packaged: str = "",
            over: Sequence[str] = ()) -> str:
        """:param over: names under which overrides of the file are looked for, the
            last one wins; its own only, if none is given
        """
        overrides = self.site.state.settings.overrides
        merged: dict[str, dict[str, str]] = {}
        for one in over or (name,):
            for section, options in overrides.get(one, {}).items():
                merged.setdefault(section, {}).update(options)
        return config.text(sections, merged, packaged)


class WsgiService(Service):
    """An API that uWSGI serves.

    :ivar module: has the callable ``application``
    :ivar processes: those that answer
    """

    module = ""
    processes = 1
    threads = 4

    def words(self) -> list[str | Path]:
        return [self.site.packages.program("uwsgi"),
                "--http-socket", f"{HOST}:{self.site.state.port(self.name)}",
                "--module", self.module, "--need-app", "--lazy-apps",
                "--master", "--no-orphans", "--die-on-term", "--worker-reload-mercy", "5",
                "--processes", str(self.processes), "--threads", str(self.threads),
                "--enable-threads", "--buffer-size", "65535",
                # Clients are reset at their second request otherwise.
                "--add-header", "Connection: close",
                # Nova sends an image in chunks of any size, with pauses.
                "--chunked-input-limit", str(1 << 30), "--chunked-input-timeout", "60"]


def tool(name: str) -> Path:
    """A program of the distribution.

    :raises CloudError: it is not installed
    """
    found = shutil.which(name, path=_SYSTEM_PATH)
    if found is None:
        raise CloudError(f"{name} is missing: ./run cloud installs what the cloud needs")
    return Path(found)


class Answer(NamedTuple):
    status: int
    headers: Message
    body: bytes


def ask(url: str, headers: Mapping[str, str] | None = None,
        body: object = None) -> Answer | None:
    """One request, POST if there is a body; None: nobody answers.

    Without a library's retries and proxies: it is asked while a service starts.
    """
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)
    try:
        connection.request(
            "GET" if body is None else "POST", parts._replace(scheme="", netloc="").geturl(),
            None if body is None else json.dumps(body),
            {"Content-Type": "application/json", **(headers or {})})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()

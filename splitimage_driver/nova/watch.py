"""Looks after servers that lay parts, one after the other, in one thread."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

from oslo_log import log as logging

LOG = logging.getLogger(__name__)
#: Seconds between two rounds.
_PAUSE = 3.0


class Watch:
    """The thread is there as long as there is something to look after.

    :param look: is given a server's id; tells whether it has to be looked after
        any longer. What it raises is logged, and it is tried again
    """

    def __init__(self, look: Callable[[str], bool], *, pause: float = _PAUSE) -> None:
        self._look, self._pause = look, pause
        #: By id; the number tells that one was added again.
        self._servers: dict[str, int] = {}
        self._added = itertools.count()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, server: str) -> None:
        """:param server: id"""
        with self._lock:
            self._servers[server] = next(self._added)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="splitimage-layouts",
                                                daemon=True)
                self._thread.start()

    def __contains__(self, server: str) -> bool:
        return server in self._servers

    def round(self) -> None:
        """Look after each of them once."""
        for server, number in list(self._servers.items()):
            try:
                wanted = self._look(server)
            except Exception:
                LOG.warning("server %s: what it lays could not be looked after, and will be "
                            "again", server, exc_info=True)
                wanted = True
            with self._lock:
                if not wanted and self._servers.get(server) == number:
                    del self._servers[server]

    def _run(self) -> None:
        wait = threading.Event()
        while True:
            wait.wait(self._pause)
            self.round()
            with self._lock:
                if not self._servers:
                    self._thread = None
                    return

"""Between a client and a server: a connection that breaks, or stands still, at
a byte that a test chooses.

The server must close the connection after each answer, as the cloud's do: then
a connection is one request.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import re
import select
import socket
import struct
import termios
import threading
import time
import urllib.parse
from collections.abc import Iterator

#: Longest wait for what a test arranges.
PATIENCE = 120.0
_HEAD = re.compile(rb"([A-Z]+) (\S+) HTTP/")
_PIECE = 65536
#: What closes at once and tells the other side so (RST).
_ABORT = struct.pack("ii", 1, 0)


class Trouble:
    """What happens to requests like this.

    :param method: of HTTP
    :param path: pattern for a part of the path
    :param after: bytes of the body that get through; 0: not even the head does
    :param down: of the answer, not of the request; there the head counts, too
    :param cut: else it stands still until :meth:`release`
    :param times: so often
    """

    def __init__(self, method: str, path: str, *, after: int, down: bool, cut: bool,
                 times: int) -> None:
        self.method, self.path, self.after = method, re.compile(path), after
        self.down, self.cut, self.left = down, cut, times
        #: Paths of the requests that it happened to.
        self.met: list[str] = []
        self._reached, self._released = threading.Event(), threading.Event()

    def wait(self) -> str:
        """Until it has happened to a request; returns its path."""
        assert self._reached.wait(PATIENCE), f"no {self.method} came to {self.after} bytes"
        return self.met[0]

    def release(self, *, cut: bool = False) -> None:
        """Let go on what stands still.

        :param cut: break it instead
        """
        self.cut = cut
        self._released.set()

    def happens(self, path: str) -> bool:
        """To a request that has come this far; returns whether it breaks."""
        self.met.append(path)
        self._reached.set()
        if not self.cut:
            self._released.wait(PATIENCE)
        return self.cut


class Proxy:
    """:param target: URL of the server
    :ivar url: its own
    :ivar heads: of all requests that came by
    """

    def __init__(self, target: str) -> None:
        place = urllib.parse.urlsplit(target)
        self._target = (str(place.hostname), int(place.port or 80))
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.heads: list[str] = []
        self._troubles: list[Trouble] = []
        self._guard = threading.Lock()
        self._open = threading.Event()
        self._open.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for trouble in self._troubles:
            trouble.release()
        self._open.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def cuts(self, method: str, path: str, *, after: int = 0, down: bool = False,
             times: int = 1) -> Trouble:
        """Such requests break."""
        return self._meddle(Trouble(method, path, after=after, down=down, cut=True, times=times))

    def holds(self, method: str, path: str, *, after: int = 0, down: bool = False,
              times: int = 1) -> Trouble:
        """Such requests stand still."""
        return self._meddle(Trouble(method, path, after=after, down=down, cut=False, times=times))

    def _meddle(self, trouble: Trouble) -> Trouble:
        with self._guard:
            self._troubles.append(trouble)
        return trouble

    def pause(self) -> None:
        """New requests wait until :meth:`go_on`."""
        self._open.clear()

    def go_on(self) -> None:
        self._open.set()

    # -- connections --------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.closing(client):
            head = self._head(client)
            found = _HEAD.match(head)
            assert found, head
            self.heads.append(head.decode())
            self._open.wait(PATIENCE)
            method, path = found[1].decode(), found[2].decode()
            trouble = self._trouble(method, path, down=False)
            if trouble is not None and not trouble.after and self._happens(trouble, path):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                return
            with contextlib.closing(socket.create_connection(self._target)) as server:
                server.sendall(head)
                self._carry(client, server, method, path)

    @staticmethod
    def _head(client: socket.socket) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = client.recv(1)
            if not piece:
                raise ConnectionError
            head += piece
        return head

    def _carry(self, client: socket.socket, server: socket.socket, method: str,
               path: str) -> None:
        passed = {client: 0, server: 0}
        other = {client: server, server: client}
        open_ends = {client, server}
        while server in open_ends:
            ready, _, _ = select.select(list(open_ends), [], [])
            for end in ready:
                trouble = self._trouble(method, path, down=end is server)
                room = _PIECE
                if trouble is not None:
                    room = min(_PIECE, trouble.after - passed[end])
                    if room <= 0:
                        if self._happens(trouble, path):
                            self._deliver(other[end])
                            for each in (client, server):
                                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                            return
                        continue
                piece = end.recv(room)
                if not piece:
                    open_ends.discard(end)
                    other[end].shutdown(socket.SHUT_WR)
                    continue
                other[end].sendall(piece)
                passed[end] += len(piece)

    @staticmethod
    def _deliver(end: socket.socket) -> None:
        """What got through is not to be lost with the connection."""
        waiting = array.array("i", [1])
        last = time.monotonic() + PATIENCE
        while waiting[0] and time.monotonic() < last:
            fcntl.ioctl(end, termios.TIOCOUTQ, waiting)
            time.sleep(0.01)

    def _trouble(self, method: str, path: str, *, down: bool) -> Trouble | None:
        with self._guard:
            return next((each for each in self._troubles if each.left and each.down == down
                         and each.method == method and each.path.search(path)), None)

    def _happens(self, trouble: Trouble, path: str) -> bool:
        with self._guard:
            if not trouble.left:
                return False
            trouble.left -= 1
        return trouble.happens(path)


@contextlib.contextmanager
def between(target: str) -> Iterator[Proxy]:
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.close()

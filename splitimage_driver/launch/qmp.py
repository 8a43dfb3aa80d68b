"""A synchronous client of qemu's monitor (QMP), for a few short questions.

A monitor serves one client at a time, and several commands of this project
may ask the same server, so connections are kept only as long as needed.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from splitimage_driver import exceptions

#: A reply is at most some kilobytes; qemu runs hostile code.
_LONGEST = 1 << 20


class Monitor:
    """A context manager.

    :param path: the Unix socket; may be longer than a socket's name can be
    :param timeout: seconds to wait for the connection and each reply
    :raises ToolFailed: nobody there, or no (proper) reply
    """

    def __init__(self, path: Path, *, timeout: float = 10.0) -> None:
        self._path, self._timeout = path, timeout
        self._socket: socket.socket | None = None
        self._stream: BinaryIO | None = None

    def __enter__(self) -> Monitor:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(self._timeout)
        try:
            directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
            try:
                self._socket.connect(f"/proc/self/fd/{directory}/{self._path.name}")
            finally:
                os.close(directory)
            self._stream = cast(BinaryIO, self._socket.makefile("rb"))
            self._receive()  # the greeting
            self.execute("qmp_capabilities")
        except OSError as error:
            self.close()
            raise _failed(f"no connection to {self._path}: {error}") from error
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for thing in (self._stream, self._socket):
            if thing is not None:
                thing.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """The command's result. An underscore in a name stands for a hyphen.

        :raises ToolFailed: qemu refused, with its words
        """
        if self._socket is None:
            raise _failed("not connected")
        request = {"execute": command,
                   "arguments": {key.replace("_", "-"): v for key, v in arguments.items()}}
        try:
            self._socket.sendall(msgspec.json.encode(request) + b"\n")
            while True:
                reply = self._receive()
                if "error" in reply:
                    raise _failed(f"{command}: {reply['error'].get('desc', 'refused')}")
                if "return" in reply:
                    return reply["return"]
        except OSError as error:
            raise _failed(f"{command}: {error}") from error

    def _receive(self) -> dict[str, Any]:
        """The next message; events are messages too."""
        if self._stream is None:
            raise _failed("not connected")
        line = self._stream.readline(_LONGEST)
        if not line.endswith(b"\n"):
            raise _failed("it closed the connection")
        try:
            return msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise _failed(f"it said nonsense: {error}") from error


def _failed(reason: str) -> exceptions.ToolFailed:
    return exceptions.ToolFailed(tool="qemu's monitor", status="QMP", reason=reason)

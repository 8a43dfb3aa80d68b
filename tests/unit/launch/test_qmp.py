from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.launch.qmp import Monitor

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'
Answers = Callable[[dict[str, Any]], bytes]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Answers], Path]]:
    """A monitor whose socket's name is longer than a socket's name can be."""
    directory = tmp_path / ("d" * 100)
    directory.mkdir()
    listener = socket.socket(socket.AF_UNIX)
    threads: list[threading.Thread] = []

    def made(answers: Answers) -> Path:
        def talk() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                connection.sendall(GREETING)
                for line in lines:
                    reply = answers(json.loads(line))
                    if not reply:
                        break
                    connection.sendall(reply)

        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(directory)
            listener.bind("qmp.sock")
        listener.listen()
        threads.append(threading.Thread(target=talk))
        threads[0].start()
        return directory / "qmp.sock"

    yield made
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    listener.close()


def test_a_command_and_its_result(serve: Callable[[Answers], Path]) -> None:
    seen: list[dict[str, Any]] = []

    def answers(request: dict[str, Any]) -> bytes:
        seen.append(request)
        event = b'{"event": "STOP", "timestamp": {}}\n'
        return event + b'{"return": {"command": "%s"}}\n' % request["execute"].encode()

    with Monitor(serve(answers)) as monitor:
        assert monitor.execute("query-jobs", node_name="x") == {"command": "query-jobs"}
    assert seen == [{"execute": "qmp_capabilities", "arguments": {}},
                    {"execute": "query-jobs", "arguments": {"node-name": "x"}}]


@pytest.mark.parametrize(("reply", "reason"), [
    (b'{"error": {"class": "GenericError", "desc": "no such node"}}\n', "quit: no such node"),
    (b"", "closed the connection"),
    (b"nonsense\n", "said nonsense"),
    (b"x" * (1 << 20), "closed the connection"),
])
def test_failures_say_what_qemu_said(serve: Callable[[Answers], Path], reply: bytes,
                                     reason: str) -> None:
    def answers(request: dict[str, Any]) -> bytes:
        return b'{"return": {}}\n' if request["execute"] == "qmp_capabilities" else reply

    with Monitor(serve(answers)) as monitor, \
            pytest.raises(exceptions.ToolFailed) as caught:
        monitor.execute("quit")
    assert reason in str(caught.value)


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(exceptions.ToolFailed), Monitor(tmp_path / "qmp.sock"):
        pass


def test_silence_is_not_waited_for(serve: Callable[[Answers], Path]) -> None:
    done = threading.Event()

    def answers(request: dict[str, Any]) -> bytes:
        done.wait(10)
        return b""

    with pytest.raises(exceptions.ToolFailed), Monitor(serve(answers), timeout=0.05):
        pass
    done.set()

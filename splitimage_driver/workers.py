"""Work in a process of its own: one that tells on the way, or one that goes on by
itself.

A process and not a thread: it can be ended at any moment as a command of its
own can, with its appliance, its scratch directory and its place in the queue.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterator
from multiprocessing import connection
from pathlib import Path
from typing import Any

import msgspec

from splitimage_driver import exceptions, process
from splitimage_driver.progress import Event, forward, listening

TOLD, DONE, FAILED = "told", "done", "failed"
_PROGRESS, _LOG = "progress", "log"
#: Of what is done in the background: whoever waits for something comes first.
_NICE = 10
#: Seconds that a worker has to tidy up when it is told to end.
_GRACE = 30.0
_spawning = multiprocessing.get_context("spawn")


class Message(msgspec.Struct, frozen=True):
    """:ivar kind: ``told``, ``done`` or ``failed``
    :ivar value: what the work told, its result, or its error"""

    kind: str
    value: Any


class Worker:
    """Runs ``work(tell, *args)``; all that it is given and gives can be
    pickled. Its progress and its log lines appear here.

    :param work: a function of a module
    :param title: what it is about, for errors
    """

    def __init__(self, work: Callable[..., Any], *args: Any, title: str) -> None:
        self.title = title
        self._receiver, sender = _spawning.Pipe(duplex=False)
        self._process = _spawning.Process(
            target=_run, args=(sender, logging.getLogger().getEffectiveLevel(), work, args))
        self._process.start()
        sender.close()

    def receive(self) -> Message | None:
        """The next message; None: it was progress, and has been passed on.
        After ``done`` or ``failed`` there is no other."""
        try:
            kind, value = self._receiver.recv()
        except EOFError:
            self._process.join()
            return Message(FAILED, exceptions.WorkerLost(
                what=self.title, status=self._process.exitcode))
        if kind == _PROGRESS:
            forward(value)
        elif kind == _LOG:
            logging.getLogger(value.name).handle(value)
        else:
            if kind != TOLD:
                self._process.join()
            return Message(kind, value)
        return None

    def end(self) -> None:
        """Told to tidy up and go, if it still works."""
        self._process.terminate()

    def join(self) -> None:
        """Until it is gone, and by force after a while."""
        self._process.join(_GRACE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._receiver.close()


def messages(workers: Collection[Worker]) -> Iterator[tuple[Worker, Message]]:
    """What they have to say now; waits until one of them says something."""
    by_receiver = {worker._receiver: worker for worker in workers}
    for receiver in connection.wait(list(by_receiver)):
        worker = by_receiver[receiver]  # type: ignore[index]
        message = worker.receive()
        if message is not None:
            yield worker, message


def background(work: Callable[..., Any], *args: Any, log: Path) -> int:
    """Run ``work(*args)`` in a process that goes on when this one has ended, with less
    priority. Its log lines go to a file, which is there as long as it works, and stays
    where it failed.

    :param work: a function of a module; all that it is given can be pickled
    :param log: made with its directory, for its user's eyes only
    :returns: the id of the process
    :raises ToolFailed: it could not be started
    """
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    said = pickle.dumps((logging.getLogger().getEffectiveLevel(), log, work, args))
    # Not the directory that the user happens to be in.
    return process.leave([sys.executable, "-c", f"import {__name__} as w; w._alone()"],
                         input=said, output=log, env={"PYTHONSAFEPATH": "1"})


# -- in the process -----------------------------------------------------------------

class _Sender:
    """To the process that waits; of all threads."""

    def __init__(self, channel: Any) -> None:
        self._channel, self._lock = channel, threading.Lock()

    def __call__(self, kind: str, value: Any) -> None:
        with self._lock:
            self._channel.send((kind, value))

    def progress(self, event: Event) -> None:
        self(_PROGRESS, event)


class _Forwarding(logging.Handler):
    def __init__(self, send: _Sender) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        # As logging.handlers.QueueHandler makes a record fit for a pipe.
        record.msg, record.args = record.getMessage(), None
        if record.exc_info:
            record.exc_text = "".join(traceback.format_exception(*record.exc_info))
            record.exc_info = None
        with contextlib.suppress(OSError):  # nobody is there any more
            self._send(_LOG, record)


def _run(channel: Any, level: int, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    # A key pressed reaches the whole group; the waiting process passes it on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_orphaned, daemon=True).start()
    send = _Sender(channel)
    logging.getLogger().addHandler(_Forwarding(send))
    logging.getLogger().setLevel(level)
    try:
        with listening(send.progress):
            result = work(lambda value: send(TOLD, value), *args)
        send(DONE, result)
    except exceptions.SplitImageError as error:
        send(FAILED, error)
    except Exception as error:
        logging.getLogger(__name__).debug("%s", traceback.format_exc())
        send(FAILED, exceptions.SplitImageError(reason=f"{type(error).__name__}: {error}"))


def _alone() -> None:
    """What a process in the background does."""
    signal.signal(signal.SIGTERM, _end)
    os.nice(_NICE)
    level, log, work, args = pickle.load(sys.stdin.buffer)  # noqa: S301 (from its starter)
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")
    try:
        work(*args)
    except exceptions.SplitImageError as error:
        logging.getLogger(__name__).error("%s", error)
        raise SystemExit(error.exit_code) from None
    log.unlink(missing_ok=True)  # of one that did the same


def _end(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # tidying up is not to be disturbed
    raise SystemExit(128 + number)


def _orphaned() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 (this is a child)
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)

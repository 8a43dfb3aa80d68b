"""splitimage server console"""

from __future__ import annotations

import argparse
import time
from collections import deque
from typing import BinaryIO

from splitimage_driver.cli import arguments, base, terminal
from splitimage_driver.model.server import BUILDING, RUNNING

_PIECE = 1 << 16
#: Seconds between two looks at a console, and at whether its server runs.
_PAUSE, _ALIVE = 0.2, 2.0


class Console(base.Command):
    """Print what a server wrote on its serial console.

    Control sequences are left out, so that a server cannot play with the
    terminal.
    """

    _last = "\n"
    examples = ("server console web", "server console web -n 20 --follow")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("server", metavar="SERVER", help="its name or id")
        parser.add_argument("-n", "--lines", type=arguments.count, metavar="N",
                            help="only the last N lines")
        parser.add_argument("--follow", action="store_true",
                            help="go on until the server ends or this is interrupted")

    def perform(self, parsed_args: argparse.Namespace) -> None:
        path = self.application.servers.console(parsed_args.server)
        cleaner = terminal.ConsoleText()
        try:
            with path.open("rb") as log:
                self._print(log, cleaner, parsed_args.lines)
                if parsed_args.follow:
                    self._follow(log, cleaner, parsed_args.server)
        except FileNotFoundError:  # it has not been started yet
            return
        self._write(cleaner.feed(b"", final=True))
        if not self._last.endswith("\n"):  # a prompt, most likely
            self._write("\n")

    def _print(self, log: BinaryIO, cleaner: terminal.ConsoleText, lines: int | None) -> None:
        if lines is None:
            while piece := log.read(_PIECE):
                self._write(cleaner.feed(piece))
            return
        last: deque[str] = deque(maxlen=lines + 1)
        rest = ""
        while piece := log.read(_PIECE):
            *whole, rest = (rest + cleaner.feed(piece)).split("\n")
            last.extend(whole)
        last.append(rest)
        kept = list(last)[-lines:] if rest else list(last)[-lines - 1:]
        self._write("\n".join(kept) if lines else "")

    def _follow(self, log: BinaryIO, cleaner: terminal.ConsoleText, name: str) -> None:
        looked = time.monotonic()
        while True:
            piece = log.read(_PIECE)
            if piece:
                self._write(cleaner.feed(piece))
                continue
            if time.monotonic() - looked > _ALIVE:
                if self.application.servers.show(name).state not in (RUNNING, BUILDING):
                    return
                looked = time.monotonic()
            time.sleep(_PAUSE)

    def _write(self, text: str) -> None:
        self._last = text or self._last
        self.app.stdout.write(text)
        self.app.stdout.flush()

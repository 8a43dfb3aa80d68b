"""splitimage launch"""

from __future__ import annotations

import argparse
import functools
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.cli import arguments, base, batch, errors
from splitimage_driver.cli.columns import Column
from splitimage_driver.cli.views import plans, results
from splitimage_driver.model.composite import answered
from splitimage_driver.model.delivery import INJECT, STREAM, WAYS

if TYPE_CHECKING:
    from splitimage_driver.model.plan import Plan
    from splitimage_driver.servers import Launched, Wish

ASSEMBLED, BOOTED, NEVER = "assembled", "booted", "never"
PUBLISH = (ASSEMBLED, BOOTED, NEVER)


class Launch(base.Lister):
    """Start servers with any parts of a composite.

    The stored image that is nearest is completed, published, and each
    server runs on a copy-on-write overlay of it. The servers outlive the
    command. With --deliver stream they boot at once, from the nearest image
    that has no part too many, and lay the others while they run; that
    publishes nothing. With --batch the requests of a JSON file are launched in the
    order that costs least: each image is made from a stored one or from
    another one of the batch, independent ones side by side. --dry-run shows
    that order. Where one fails the others go on::

        [{"composite": "lamp", "parts": ["apache"], "count": 2, "wait": 80},
         {"composite": "lamp", "parts": ["apache", "php"], "filesets": ["page"],
          "on_conflict": {"/var/www/html/index.html": "replace"}}]

    Its keys are named as the options; a key not given is as the command line
    says.
    """

    examples = (
        "launch lamp --part apache --part php --wait 80 --path /",
        "launch lamp --part apache --deliver stream --wait-complete",
        "launch lamp --part apache --fileset ./page --count 3 --port 22 \\\n"
        "        --on-conflict /var/www/html/index.html=replace",
        "launch --batch requests.json --dry-run")
    columns: Sequence[Column] = results.LAUNCHED
    failures: Sequence[exceptions.SplitImageError] = ()
    launched: Sequence[Launched] = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_request(parser, composite=False)
        parser.add_argument("--name", type=_name,
                            help="of the server; with --count its number is added "
                                 "(default: COMPOSITE+PARTS)")
        parser.add_argument("--count", type=arguments.whole(1, batch.MAX_COUNT), default=1,
                            metavar="N", help="start N servers from one assembly (default: 1)")
        parser.add_argument("--publish", choices=PUBLISH, default=ASSEMBLED,
                            help="keep the disk as assembled, before its first boot; or a "
                                 "snapshot of the server once it answers on --wait, its "
                                 "identity cleaned; or nothing (default: assembled)")
        parser.add_argument("--deliver", choices=WAYS, default=INJECT,
                            help="complete the disk before the server boots; or let the server "
                                 "lay its parts while it runs; or what is predicted to bring "
                                 "its services up earlier (default: inject)")
        parser.add_argument("--memory", type=arguments.whole(1), metavar="MIB",
                            help="of a server (default: [launch] memory)")
        parser.add_argument("--cpus", type=arguments.whole(1), metavar="N",
                            help="of a server (default: [launch] cpus)")
        parser.add_argument("--port", type=arguments.port, action="append", default=[],
                            dest="ports", metavar="N",
                            help="make the server's TCP port N reachable at a free port of "
                                 "127.0.0.1 (repeat for more)")
        parser.add_argument("--wait", type=arguments.port, metavar="PORT",
                            help="wait until the server answers on its port PORT")
        parser.add_argument("--path", metavar="/PATH",
                            help="with --wait and a web server's port: until this page's status "
                                 "is 200")
        parser.add_argument("--wait-complete", action="store_true", dest="complete",
                            help="with --deliver: wait until all parts are laid")
        parser.add_argument("--timeout", type=arguments.seconds, metavar="SECONDS",
                            help="to wait at most (default: [launch] timeout; layout_timeout "
                                 "for --wait-complete)")
        parser.add_argument("--batch", type=Path, metavar="FILE",
                            help="launch the requests of a JSON file")
        parser.add_argument("--dry-run", action="store_true",
                            help="only plan; with --batch: what each image would be made from")
        self.parser = parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        if parsed_args.dry_run:
            self.columns = plans.BATCH if parsed_args.batch else plans.PLANNED
        return super().take_action(parsed_args)

    def records(self, parsed_args: argparse.Namespace) -> Iterable[Any]:
        self._check(parsed_args)
        # Read as a whole before anything is started.
        wishes = [wish() for wish in list(self._wishes(parsed_args))]
        if parsed_args.batch is None:
            if parsed_args.dry_run:
                return [self._planned(wishes[0])]
            self.launched = [self.application.servers.launch(wishes[0])]
            return _rows(self.launched[0])
        service = self.application.batches
        if parsed_args.dry_run:
            wishes = [msgspec.structs.replace(wish, deliver=STREAM) if self._streamed(wish)
                      else wish for wish in wishes]
            return plans.batch(service.plan(wishes), wishes)
        outcomes = service.launch(wishes)
        # Told below the table of what runs.
        self.failures = [outcome.error for outcome in outcomes if outcome.error is not None]
        self.launched = [outcome.launched for outcome in outcomes
                         if outcome.launched is not None]
        return [row for launched in self.launched for row in _rows(launched)]

    def run(self, parsed_args: argparse.Namespace) -> int:
        status = super().run(parsed_args)
        for launched in self.launched:
            self._advise(launched)
        told = [self.tell(error) for error in self.failures]
        return status or next(iter(told), 0)

    def _advise(self, launched: Launched) -> None:
        """Servers that lay their parts publish no image of them: how to have one."""
        first = launched.servers[0]
        if first.layout is None:
            return
        if any(not server.complete for server in launched.servers):
            errors.say(f"{first.name} lays its parts while it runs",
                       f"{self.program} server wait {first.name}")
        request = launched.plan.request
        words = ["assemble", request.composite, "--background",
                 *(word for part in request.parts for word in ("--part", part)),
                 *(word for fileset in request.filesets for word in ("--fileset", fileset)),
                 *(word for answer in request.answers for word in (
                     "--on-conflict", f"/{os.fsdecode(answer.path)}={answer.action}"))]
        errors.say("no image of these parts was published",
                   f"for later launches: {self.program} {shlex.join(words)}")

    def _planned(self, wish: Wish) -> Plan:
        return self.application.images.plan(
            msgspec.structs.replace(wish.request, booted=wish.publish == BOOTED),
            growing=self._streamed(wish))

    def _streamed(self, wish: Wish) -> bool:
        deliveries = self.application.images.deliveries
        return (wish.publish != BOOTED
                and deliveries.way(wish.request, wish.deliver) == STREAM)

    def _check(self, parsed: argparse.Namespace) -> None:
        if bool(parsed.batch) == bool(parsed.composite):
            self.parser.error("give either COMPOSITE or --batch FILE")
        if parsed.batch and (parsed.parts or parsed.filesets or parsed.answers or parsed.name
                             or parsed.count != 1):
            self.parser.error("--part, --fileset, --on-conflict, --name and --count are in the "
                              "file of --batch")
        arguments.one_each(parsed.answers, self.parser)
        if parsed.batch is None:
            reason = _unfit(parsed.publish, parsed.wait, parsed.path, parsed.deliver)
            if reason:
                self.parser.error(reason)

    def _wishes(self, parsed: argparse.Namespace) -> Iterator[Callable[[], Wish]]:
        """Built when their turn comes: file sets given by path are stored then."""
        if parsed.batch is None:
            yield functools.partial(self._wish, parsed, batch.Entry(
                composite=parsed.composite, parts=tuple(parsed.parts),
                filesets=tuple(parsed.filesets), name=parsed.name,
                count=parsed.count), parsed.answers)
            return
        for number, entry in enumerate(batch.read(parsed.batch)):
            place = f"batch {parsed.batch}, $[{number}]"
            if not entry.composite:
                raise exceptions.InvalidInput(what=place, reason="it names no composite")
            reason = _unfit(entry.publish or parsed.publish, _or(entry.wait, parsed.wait),
                            _or(entry.path, parsed.path), entry.deliver or parsed.deliver)
            if reason:
                raise exceptions.InvalidInput(what=place, reason=reason)
            answers = [answered(path, action) for path, action in entry.on_conflict.items()]
            yield functools.partial(self._wish, parsed, entry, answers)

    def _wish(self, parsed: argparse.Namespace, entry: batch.Entry, answers: Any) -> Wish:
        from splitimage_driver.servers import Wish
        return Wish(
            request=arguments.build(self.application, entry.composite, entry.parts,
                                    entry.filesets, answers),
            name=entry.name or "", count=entry.count,
            publish=entry.publish or parsed.publish,
            deliver=entry.deliver or parsed.deliver,
            complete=_or(entry.wait_complete, parsed.complete),
            memory=_or(entry.memory, parsed.memory), cpus=_or(entry.cpus, parsed.cpus),
            ports=arguments.unique(_or(entry.ports, parsed.ports)),
            wait=_or(entry.wait, parsed.wait), path=_or(entry.path, parsed.path),
            timeout=_or(entry.timeout, parsed.timeout))


def _rows(launched: Launched) -> list[dict[str, Any]]:
    return [{"server": server, "plan": launched.plan, "measured": launched.measured,
             "unknown": launched.unknown} for server in launched.servers]


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _unfit(publish: str, wait: int | None, path: str | None, deliver: str) -> str:
    """Why these do not go together; "" if they do."""
    if publish == BOOTED and deliver == STREAM:
        return "--publish booted and --deliver stream: what lays its parts publishes nothing"
    if publish == BOOTED and wait is None:
        return "--publish booted needs --wait, which tells when a server has booted"
    if path is None:
        return ""
    from splitimage_driver.launch.base import HTTP_PORTS
    if wait not in HTTP_PORTS:
        return (f"a page is waited for on a web server's port: "
                f"--wait {'|'.join(map(str, sorted(HTTP_PORTS)))}")
    return "" if path.startswith("/") else f"the path {path!r} does not begin with /"


def _name(text: str) -> str:
    if not re.match(batch.NAME, text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not 1 to 100 of A-Z a-z 0-9 . _ + - that begin with a letter or digit")
    return text

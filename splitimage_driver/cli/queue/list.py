"""splitimage queue list"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

from splitimage_driver.cli import base
from splitimage_driver.cli.columns import Amount, Column, Moment, Size, Words
from splitimage_driver.store.records import Need, QueueItem


def _needed(value: Callable[[Need], Any]) -> Callable[[QueueItem], Any]:
    return lambda item: None if item.need is None else value(item.need)


class ListQueue(base.Lister):
    """List the assemblies that run and that wait on this host.

    First those that run, then those that wait, in order of arrival. "from" is
    the image that each is or will be made from, stored already or that of
    another one in the list; "left" are the predicted seconds until its own is
    there.
    """

    examples = ("queue list",)
    columns = (Column("id", lambda q: q.id), Column("subject", lambda q: q.subject),
               Column("state", lambda q: q.state), Column("owner", _needed(lambda n: n.owner)),
               Column("since", lambda q: Moment(q.since)),
               Column("from", lambda q: q.source or None),
               Column("left", lambda q: Amount(q.left)), Column("pid", lambda q: q.pid),
               Column("parts", _needed(lambda n: Words(n.parts)), long=True),
               Column("filesets", _needed(lambda n: Words(n.filesets)), long=True),
               Column("cost", lambda q: Amount(q.need and q.need.seconds), long=True),
               Column("scratch", _needed(lambda n: Size(n.room)), long=True))

    def records(self, parsed_args: argparse.Namespace) -> Iterable[Any]:
        return self.application.store.queue(forecast=True)

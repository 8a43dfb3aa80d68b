"""splitimage queue list"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from splitimage_driver.cli import base
from splitimage_driver.cli.columns import Column, Moment


class ListQueue(base.Lister):
    """List the assemblies that run and that wait, in order of arrival."""

    examples = ("queue list",)
    columns = (Column("id", lambda q: q.id), Column("subject", lambda q: q.subject),
               Column("state", lambda q: q.state), Column("pid", lambda q: q.pid),
               Column("since", lambda q: Moment(q.since)))

    def records(self, parsed_args: argparse.Namespace) -> Iterable[Any]:
        return self.application.store.queue()

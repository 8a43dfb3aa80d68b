"""splitimage plan"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from splitimage_driver.cli import arguments, base, offline
from splitimage_driver.cli.views import plans

#: With --history.
_LAUNCHES = 20


class Plan(base.ShowOne):
    """Say which stored image a request would start from, and what would be done.

    Nothing is fetched or assembled. With --explain every candidate is
    listed, the best first, with each term of its cost, the rates that it was
    computed with, and for the best of those that lost the term and the files
    that made them lose. In tables match is exact (nothing to do), base,
    subset (lacks something), superset (has too much) or partial (both).

    With --history the assemblies of launches that were: what was predicted,
    and what they took.

    With --catalog and --requests the images and the requests are read from
    files, and no store is needed: for capacity planning, and for checking.
    """

    examples = ("plan lamp --part apache --part php",
                "plan lamp --part apache --explain --cost transport",
                "plan lamp --part apache --explain -f json",
                "plan --history",
                "plan --catalog CATALOG.json --requests REQUESTS.json --cost remove -f json",
                "plan --catalog CATALOG.json --requests REQUESTS.json --batch -f json")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_request(parser, composite=False)
        parser.add_argument("--explain", action="store_true",
                            help="every candidate, and why it was or was not chosen")
        parser.add_argument("--cost", metavar="NAME",
                            help="the equation: download, inject, remove, transport, weighted, "
                                 "count, bytes (default: [planning] cost)")
        parser.add_argument("--history", action="store_true",
                            help="predicted and measured seconds of the launches that were, the "
                                 "newest first")
        parser.add_argument("--limit", type=arguments.whole(1), metavar="N",
                            help=f"with --history: launches to show (default: {_LAUNCHES})")
        offline.add_arguments(parser)
        self.parser = parser

    def fields(self, parsed_args: argparse.Namespace) -> Mapping[str, Any]:
        if offline.check(parsed_args, self.parser):
            return offline.fields(parsed_args)
        if parsed_args.history:
            return {"history": plans.history(self.application.store.history(
                "launch", limit=parsed_args.limit or _LAUNCHES))}
        arguments.one_each(parsed_args.answers, self.parser)
        plan = self.application.images.plan(
            arguments.request(self.application, parsed_args), explain=parsed_args.explain,
            cost=parsed_args.cost, top=parsed_args.top or offline.TOP)
        found = plans.plan(plan)
        if parsed_args.explain:
            found["considered"] = plans.considered(plan)
            found["rates"] = plans.rates(plan.rates)
        return found

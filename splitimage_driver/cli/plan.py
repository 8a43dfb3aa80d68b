"""splitimage plan"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from splitimage_driver.cli import arguments, base, views


class Plan(base.ShowOne):
    """Say which stored image a request would start from, and what would be done.

    Nothing is fetched or assembled. With --explain every candidate is
    listed, the best first, with each term of its cost. In tables match is
    exact (nothing to do), base, subset (lacks something), superset (has too
    much) or partial (both).
    """

    examples = ("plan lamp --part apache --part php",
                "plan lamp --part apache --explain --cost transport",
                "plan lamp --part apache --explain -f json")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_request(parser)
        parser.add_argument("--explain", action="store_true",
                            help="every candidate, and why it was or was not chosen")
        parser.add_argument("--cost", metavar="NAME",
                            help="the equation: download, inject, remove, transport, weighted, "
                                 "count, bytes (default: [planning] cost)")
        self.parser = parser

    def fields(self, parsed_args: argparse.Namespace) -> Mapping[str, Any]:
        arguments.one_each(parsed_args.answers, self.parser)
        plan = self.application.images.plan(
            arguments.request(self.application, parsed_args), explain=parsed_args.explain,
            cost=parsed_args.cost)
        found = views.plan(plan)
        if parsed_args.explain:
            found["considered"] = views.considered(plan)
        return found

"""splitimage weights show"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from splitimage_driver.cli import base
from splitimage_driver.cli.views import plans


class ShowWeights(base.Lister):
    """Show the rates that costs are computed with, and where they come from.

    Configured is what the options say, or what is usual for hosts of this
    kind. With [planning] weights = adaptive, learnt is how much longer
    (more than 1) or shorter finished assemblies took than that predicts, and
    load the share of this host's speed that is left at this moment; used is
    what follows from both. --weights shows what another plugin would use.
    """

    examples = ("weights show", "weights show --weights adaptive --long")
    columns = plans.QUANTITIES

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--weights", metavar="NAME",
                            help="static, adaptive, or another plugin (default: [planning] "
                                 "weights)")

    def records(self, parsed_args: argparse.Namespace) -> Iterable[Any]:
        return self.application.images.plans.weighing(parsed_args.weights).told

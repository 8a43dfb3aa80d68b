"""splitimage assemble"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitimage_driver.cli import arguments, base, output
from splitimage_driver.cli.columns import Amount
from splitimage_driver.cli.views import plans, results

if TYPE_CHECKING:
    from splitimage_driver.model.plan import Plan
    from splitimage_driver.service import Assembled


class Assemble(base.ShowOne):
    """Make a bootable disk with any parts of a composite.

    The stored image that is nearest is completed and published, so that the
    same request needs no work the next time. With --background that is left
    to a process of its own; the file that it logs to is there until it is
    done, and stays where it failed.
    """

    examples = (
        "assemble lamp --part apache --part php -o web.qcow2",
        "assemble lamp --part apache --fileset ./page \\\n"
        "        --on-conflict /var/www/html/index.html=replace -o page.qcow2",
        "assemble lamp --part apache -o scratch.qcow2 --overlay",
        "assemble lamp --part apache --background")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_request(parser)
        parser.add_argument("-o", "--output", type=Path, metavar="OUT",
                            help="the file to write; without it the image is only published")
        output.add_arguments(parser)
        parser.add_argument("--overlay", action="store_true",
                            help="make OUT a copy-on-write overlay on the store's image: at "
                                 "once, but it works only as long as that image is kept")
        parser.add_argument("--publish", choices=("assembled", "never"), default="assembled",
                            help="whether to keep the completed image (default: assembled)")
        parser.add_argument("--background", action="store_true",
                            help="return at once: a process of its own makes and publishes "
                                 "the image, and queue list shows it; needs no -o")
        arguments.add_image_store(parser)
        self.parser = parser

    def fields(self, parsed_args: argparse.Namespace) -> Mapping[str, Any]:
        arguments.one_each(parsed_args.answers, self.parser)
        publish = parsed_args.publish == "assembled"
        if parsed_args.output is None and not publish:
            self.parser.error("--publish never without -o keeps nothing")
        if parsed_args.overlay and (parsed_args.output is None or not publish
                                    or parsed_args.disk_format != output.QCOW2):
            self.parser.error("--overlay goes with -o, qcow2 and a published image")
        if parsed_args.background and (parsed_args.output is not None or not publish):
            self.parser.error("--background publishes an image, and nothing else")
        if parsed_args.output is not None:
            output.check(parsed_args.output, force=parsed_args.force)
        arguments.choose_image_store(self.application, parsed_args)
        request = arguments.request(self.application, parsed_args)
        if parsed_args.background:
            plan = self.application.images.plan(request)
            if not plan.exact:
                pid, log = self.application.assemble_later(request, plan.recipe)
                return {**plans.plan(plan), "pid": pid, "log": str(log)}
        seconds = 0.0
        # The disk is kept for the length of the block.
        with self.application.images.assembled(request, publish=publish) as (plan, done):
            if parsed_args.output is not None:
                seconds = output.write(self.application.store.path(done.disk), done.disk,
                                       parsed_args)
        return _fields(plan, done, parsed_args.output, seconds)


def _fields(plan: Plan, done: Assembled, written: Path | None,
            seconds: float) -> dict[str, Any]:
    found = results.assembled(plan, done)
    if written is not None:
        found |= {"output": str(written), "written in": Amount(seconds)}
    return found

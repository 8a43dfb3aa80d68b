"""splitimage capture"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from splitimage_driver import exceptions
from splitimage_driver.cli import arguments, base
from splitimage_driver.cli.views import composites

BASE = "base"


class Capture(base.ShowOne):
    """Turn a gold machine into a composite image: a base and parts.

    Either give the machine's disk after each install step, base first (a
    later step may be a tar file of the root file system instead), or one
    finished disk and the packages of each piece of software.
    """

    examples = (
        "capture lamp --step base=base.qcow2 \\\n"
        "        --step apache=apache.qcow2 --step php=php-root.tar",
        "capture lamp --disk gold.qcow2 --software apache=apache2 \\\n"
        "        --software db=mariadb-server,mariadb-client",
        "capture web --onto lamp --step base=base.qcow2 --step nginx=nginx.tar")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME", help="the composite's name")
        parser.add_argument("--step", action="append", default=[], dest="steps",
                            type=arguments.step, metavar="NAME=DISK",
                            help="a state of the machine: base=DISK, then one for each piece of "
                                 "software in order, a disk or a tar file of the root")
        parser.add_argument("--disk", type=Path, metavar="DISK", help="the finished machine")
        parser.add_argument("--software", action="append", default=[], type=arguments.software,
                            metavar="NAME=PACKAGE,...",
                            help="with --disk: a part and the packages it is made of")
        parser.add_argument("--onto", metavar="COMPOSITE",
                            help="add the parts to this composite, whose base is the same; "
                                 "NAME then only names the rest part")
        parser.add_argument("--renumber", action="store_true",
                            help="give accounts of new parts other numbers where they clash")
        parser.add_argument("--hardware", type=Path, metavar="FILE",
                            help="what is known of the machine's hardware: a JSON object or a "
                                 "libvirt domain XML")
        parser.add_argument("--public", action="store_true",
                            help="offer the composite to other projects")
        arguments.add_image_store(parser)

    def fields(self, parsed_args: argparse.Namespace) -> Mapping[str, Any]:
        from splitimage_driver.capture.hardware import read
        known = read(parsed_args.hardware) if parsed_args.hardware else {}
        arguments.choose_image_store(self.application, parsed_args)
        composite = self.application.images.capture(
            parsed_args.name, gold(parsed_args, known), onto=parsed_args.onto,
            renumber=parsed_args.renumber, public=parsed_args.public)
        return composites.composite(composite, self.application.store)


def gold(parsed_args: argparse.Namespace, hardware: Mapping[str, Any]) -> Any:
    """The :class:`Gold` that the arguments describe.

    :raises InvalidInput: they do not fit together
    """
    from splitimage_driver.capture.machine import Gold
    if bool(parsed_args.steps) == bool(parsed_args.disk or parsed_args.software):
        raise exceptions.InvalidInput(
            what="capture", reason="give either --step, base first, or --disk and --software")
    if parsed_args.steps:
        (first, disk), *later = parsed_args.steps
        if first != BASE:
            raise exceptions.InvalidInput(
                what=f"--step {first}", reason=f"the first step is {BASE}=DISK, the machine "
                                               "without the software")
        return Gold(disk=disk, steps=tuple(later), hardware=dict(hardware))
    if not parsed_args.disk:
        raise exceptions.InvalidInput(what="--software", reason="it needs --disk")
    names = [name for name, _ in parsed_args.software]
    for name in names:
        if names.count(name) > 1:
            raise exceptions.InvalidInput(what=f"--software {name}", reason="it is given twice")
    return Gold(disk=parsed_args.disk, software=dict(parsed_args.software),
                hardware=dict(hardware))

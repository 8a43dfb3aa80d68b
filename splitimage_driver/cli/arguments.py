"""Words of the command line, and how they are read."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from splitimage_driver.cli import lookup
from splitimage_driver.model.composite import TENANTS_ACTIONS, Answer, answered
from splitimage_driver.model.part import FILESET
from splitimage_driver.model.plan import Request

if TYPE_CHECKING:
    from splitimage_driver.application import Application

_T = TypeVar("_T")

_ARCHIVE = re.compile(r"\.(tar|tgz|txz|tzst|tar\.\w+|squashfs|sqfs)\Z")


# -- types of argparse -------------------------------------------------------------

def pair(text: str) -> tuple[str, str]:
    """NAME=VALUE, both there."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return name, value


def step(text: str) -> tuple[str, Path]:
    name, value = pair(text)
    return name, Path(value)


def software(text: str) -> tuple[str, tuple[str, ...]]:
    """NAME=PACKAGE[,PACKAGE...]"""
    name, value = pair(text)
    packages = tuple(filter(None, value.split(",")))
    if not packages:
        raise argparse.ArgumentTypeError(f"{text!r} names no package")
    return name, packages


def answer(text: str) -> Answer:
    """PATH=keep|replace|concatenate; the path may hold a = itself."""
    path, _, action = text.rpartition("=")
    if action not in TENANTS_ACTIONS or not path.strip("/"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form PATH={'|'.join(TENANTS_ACTIONS)}")
    return answered(path, action)


def whole(lowest: int, highest: int | None = None) -> Callable[[str], int]:
    """A whole number within bounds."""
    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = lowest - 1
        if value < lowest or (highest is not None and value > highest):
            bounds = f"{lowest} or more" if highest is None else f"{lowest} to {highest}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, {bounds}")
        return value

    return number


port = whole(1, 65535)
count = whole(0)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time in seconds")
    return value


# -- where parts go --------------------------------------------------------------------

def add_image_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image-store", metavar="NAME",
                        help="in a cloud: the store of its image service that new parts go to, "
                             "as openstack image stores info shows it (default: [glance] store)")


def choose_image_store(application: Application, parsed: argparse.Namespace) -> None:
    """:raises InvalidInput: the store is no image service"""
    if parsed.image_store:
        application.choose_image_store(parsed.image_store)


# -- a request -------------------------------------------------------------------------

def add_request(parser: argparse.ArgumentParser, *, composite: bool = True) -> None:
    """COMPOSITE, --part, --fileset, --on-conflict.

    :param composite: whether it has to be given
    """
    parser.add_argument("composite", metavar="COMPOSITE", nargs=None if composite else "?",
                        help="name or id of the composite image")
    add_parts(parser, of="it", none="; none: the base alone")
    add_answers(parser)


def add_parts(parser: argparse.ArgumentParser, *, of: str, none: str = "") -> None:
    """--part, --fileset.

    :param of: of what they are parts
    :param none: what it means to give none
    """
    parser.add_argument("--part", action="append", default=[], dest="parts", metavar="PART",
                        help=f"a part of {of}; what it requires comes along (repeat for more"
                             f"{none})")
    parser.add_argument("--fileset", action="append", default=[], dest="filesets", metavar="F",
                        help="files of your own: a directory or an archive, which is stored as "
                             "a part named after it, or the name or id of a stored one; what "
                             "exists as a path is taken as a path (repeat for more)")


def add_answers(parser: argparse.ArgumentParser) -> None:
    """--on-conflict."""
    parser.add_argument("--on-conflict", action="append", default=[], dest="answers",
                        type=answer, metavar="PATH=ANSWER",
                        help="where a file set and a part both bring PATH: keep the part's, "
                             "replace it by the file set's, or concatenate both "
                             "(repeat for more)")


def add_layout_timeout(parser: argparse.ArgumentParser, *, no_wait: bool = False) -> None:
    """--timeout, and --no-wait for commands that begin something."""
    parser.add_argument("--timeout", type=seconds, metavar="SECONDS",
                        help="to wait at most (default: [launch] layout_timeout)")
    if no_wait:
        parser.add_argument("--no-wait", action="store_true",
                            help="let the server go on by itself; server show tells how far it "
                                 "is, server wait waits")


def request(application: Application, parsed: argparse.Namespace) -> Request:
    """What :func:`add_request` read; file sets given by path are stored."""
    return build(application, parsed.composite, parsed.parts, parsed.filesets, parsed.answers)


def build(application: Application, composite: str, parts: Iterable[str],
          filesets: Iterable[str], answers: Iterable[Answer]) -> Request:
    return Request(composite=composite, parts=unique(parts),
                   filesets=unique(fileset(application, given) for given in filesets),
                   answers=tuple(sorted(answers, key=lambda a: (a.path, a.action))))


def unique(items: Iterable[_T]) -> tuple[_T, ...]:
    """In the order given, each once."""
    return tuple(dict.fromkeys(items))


def fileset(application: Application, given: str) -> str:
    """The id of the file set that is meant.

    :raises NotFound: neither a path nor a stored file set
    :raises UnsafePath: :raises UnsafeMode: :raises BadArchive: :raises TooLarge:
    """
    path = Path(given)
    if os.path.lexists(path) or "/" in given:
        return application.images.create_part(part_name(path), path).id
    return lookup.part(application, given, kind=FILESET).id


def part_name(path: Path) -> str:
    """A name for a part made of a file: the file's own, as far as its
    characters will do."""
    plain = _ARCHIVE.sub("", path.absolute().name.lower())
    return re.sub(r"[^a-z0-9._-]+", "-", plain).strip("-._")[:63] or "files"


def one_each(answers: Sequence[Answer], parser: argparse.ArgumentParser) -> None:
    """Refuse two answers to one question."""
    paths = [a.path for a in answers]
    for path in paths:
        if paths.count(path) > 1:
            parser.error(f"--on-conflict answers {os.fsdecode(path)} twice")

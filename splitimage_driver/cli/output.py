"""Disks written to files of the user."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from splitimage_driver import exceptions

QCOW2, RAW = "qcow2", "raw"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--disk-format", choices=(QCOW2, RAW), default=QCOW2,
                        help="of the file that is written (default: qcow2)")
    parser.add_argument("--force", action="store_true", help="overwrite the file if it exists")


def check(path: Path, *, force: bool) -> None:
    """Refuse early what would fail late.

    :raises AlreadyExists: and not ``force``
    :raises InvalidInput: it cannot be written
    """
    directory = path.absolute().parent
    if not directory.is_dir():
        raise exceptions.InvalidInput(what=str(path), reason=f"there is no directory {directory}")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise exceptions.InvalidInput(what=str(path), reason=f"{directory} cannot be written")
    if path.is_dir():
        raise exceptions.InvalidInput(what=str(path), reason="it is a directory")
    if os.path.lexists(path) and not force:
        raise exceptions.AlreadyExists(kind="file", name=str(path), where=str(directory))


def write(disk: Path, digest: str, parsed: argparse.Namespace) -> float:
    """Write the store's qcow2 ``disk`` to ``parsed.output``, beside it first;
    returns the seconds it took.

    :param digest: sha256 of the disk, checked on the way
    :raises DigestMismatch: nothing is written
    """
    from splitimage_driver.assembly import disks
    began = time.monotonic()
    # It may have appeared while the disk was assembled.
    check(parsed.output, force=parsed.force)
    if getattr(parsed, "overlay", False):
        with disks.beside(parsed.output) as part:
            disks.create_overlay(disk, QCOW2, part)
    elif parsed.disk_format == QCOW2:
        disks.copy(disk, parsed.output, expected=digest, sync=True)
    else:
        disks.convert(disk, QCOW2, parsed.output, parsed.disk_format)
    return time.monotonic() - began

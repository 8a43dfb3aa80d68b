"""splitimage doctor"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from splitimage_driver.cli import base
from splitimage_driver.cli.columns import Column

if TYPE_CHECKING:
    from splitimage_driver.doctor import Check

_WORDS = {True: "ok", False: "FAILED", None: "warning"}
FAILED = 1


class Doctor(base.Lister):
    """Check what this host needs, and say how to mend what is missing.

    Ends with 1 if something fails; a warning means slower, or not for long.
    With a cloud, log in there and ask its image service, too.
    """

    examples = ("doctor", "doctor -f json")
    columns = (Column("check", lambda c: c.name),
               Column("state", lambda c: _WORDS[c.ok]),
               Column("found", lambda c: c.detail),
               Column("what to do", lambda c: c.mend))

    def records(self, parsed_args: argparse.Namespace) -> Iterable[Check]:
        from splitimage_driver import doctor
        found = list(doctor.checks(self.application.conf, self.application.path))
        if self.application.in_cloud:
            found.append(doctor.cloud(lambda: self.application.store.greet()))
        if any(check.ok is False for check in found):
            self.status = FAILED
        return found

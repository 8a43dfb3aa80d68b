"""A real OpenStack on this host, from PyPI, for the functional tests and for people.

``./run cloud`` starts it, ``./run cloud-down`` ends it. One module a service;
what they have in common is in :mod:`tests.cloud.service`, and
:class:`tests.cloud.allinone.Cloud` puts them together.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
#: Packages, configuration, data, logs, accounts: all that there is of the cloud.
DIRECTORY = ROOT / ".cache" / "cloud"
#: All services listen here, and only here.
HOST = "127.0.0.1"


class CloudError(Exception):
    """The cloud cannot be had; one line that says why.

    :ivar log: last lines of the log of the service that failed
    """

    def __init__(self, reason: str, log: str = "") -> None:
        super().__init__(reason)
        self.log = log
        if log:
            self.add_note(log)

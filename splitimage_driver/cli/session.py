"""What a command finds in whichever shell it runs: ``splitimage``, or
``openstack`` with the plugin of :mod:`splitimage_driver.cli.openstack`.

Both have it where plugins of ``openstack`` have their client: at
``app.client_manager.splitimage``.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from splitimage_driver.application import Application

NAME = "splitimage"
#: The other shell, and its words before those of a command.
OPENSTACK, BELOW_OPENSTACK = "openstack", f"openstack {NAME}"
#: What ends a command in good order: scratch, locks and appliances go with it.
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Session:
    """:param build: makes the application
    :param progress: how progress is shown, see :data:`progress.WAYS`
    :param debug: whether errors are told with their tracebacks
    """

    def __init__(self, build: Callable[[], Application], *, progress: str, debug: bool) -> None:
        self._build, self.progress, self.debug = build, progress, debug

    @functools.cached_property
    def application(self) -> Application:
        """Built when a command first needs it: it takes time to import."""
        return self._build()

    def close(self) -> None:
        """After a command; another one of the same shell opens it all again."""
        application = vars(self).pop("application", None)
        if application is not None:
            application.close()


def end_in_order() -> None:
    """Signals that would kill the process end its command."""
    for number in _SIGNALS:
        with suppress(ValueError):  # not in the main thread
            signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    for each in _SIGNALS:  # once is enough: tidying up is not to be disturbed
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)

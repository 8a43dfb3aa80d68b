"""oslo.log for a command: warnings on standard error, all of it on request."""

from __future__ import annotations

import logging as standard
import sys
from collections.abc import Sequence

from oslo_config import cfg
from oslo_context import context
from oslo_log import formatters
from oslo_log import log as logging

from splitimage_driver.cli import terminal

#: What other libraries log of what is told to the user anyway.
_NOISY = {"filelock": standard.WARNING, "oslo_utils.imageutils": standard.ERROR,
          "keystoneauth": standard.ERROR}
#: cliff counts -v from 1.
QUIET, NORMAL = 0, 1


class _Short(standard.Formatter):
    def format(self, record: standard.LogRecord) -> str:
        return terminal.line(f"splitimage: {record.levelname.lower()}: {record.getMessage()}")


class _Full(formatters.ContextFormatter):
    def format(self, record: standard.LogRecord) -> str:
        return terminal.printable(super().format(record))


class _StandardError:
    """Whatever standard error is at the moment: the progress bar takes its
    place for a while, so that lines do not go through it."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure(files: Sequence[str] | None, *, verbosity: int, debug: bool,
              log_file: str | None) -> None:
    """Set oslo.log up, by the configuration files' group ``[DEFAULT]`` and
    the command line.

    :param files: None: the default places
    :param verbosity: 0: errors only, 1: warnings too, 2: what is done
    :param debug: everything, with time, source and request id
    :param log_file: for all from INFO on, with time, source and request id
    """
    conf = cfg.ConfigOpts()
    logging.register_options(conf)
    try:
        conf([], project="splitimage", prog="splitimage",
             default_config_files=list(files) if files else None)
    except cfg.Error:  # told by whoever needs the other options
        conf([], project="splitimage", prog="splitimage", default_config_files=[])
    if debug:
        conf.set_override("debug", True)
    if log_file:
        conf.set_override("log_file", log_file)
    conf.set_default("use_stderr", True)
    logging.setup(conf, "splitimage")
    _hush()
    # A traceback is for --debug to show: errors are told elsewhere.
    sys.excepthook = sys.__excepthook__
    context.RequestContext(overwrite=True)
    level = (standard.DEBUG if debug else standard.INFO if verbosity > NORMAL
             else standard.WARNING if verbosity == NORMAL else standard.ERROR)
    for handler in standard.getLogger().handlers:
        if isinstance(handler, standard.StreamHandler) and handler.stream is sys.stderr:
            handler.setLevel(level)
            handler.setFormatter(_Full(project="splitimage", version="", config=conf)
                                 if debug else _Short())
            handler.setStream(_StandardError())


def join() -> None:
    """Log through what another program has set up, as harmlessly as here."""
    _hush()
    for handler in standard.getLogger().handlers:
        handler.addFilter(_harmless)


def _harmless(record: standard.LogRecord) -> bool:
    if record.name.startswith("splitimage_driver"):
        record.msg, record.args = terminal.printable(record.getMessage()), None
    return True


def _hush() -> None:
    for name, noise in _NOISY.items():
        standard.getLogger(name).setLevel(noise)

"""What a command says when it fails: one line, one hint, an exit code."""

from __future__ import annotations

import sys
import traceback

from splitimage_driver import exceptions
from splitimage_driver.cli import session, terminal

INTERRUPTED = 130


def tell(error: BaseException, *, debug: bool = False, program: str = session.NAME) -> int:
    """Print an error to standard error; returns the exit code.

    :param debug: with the traceback
    :param program: what is typed before the words of a command
    """
    if debug:
        print(terminal.printable("".join(traceback.format_exception(error))), end="",
              file=sys.stderr)
    if isinstance(error, KeyboardInterrupt):
        say("interrupted; nothing is half done: run it again when you want")
        return INTERRUPTED
    known = _known(error)
    hint = known.hint if program == session.NAME else known.hint.replace(
        f"{session.NAME} ", f"{program} ")
    say(str(known), hint % known.fields)
    return known.exit_code


def _known(error: BaseException) -> exceptions.SplitImageError:
    if isinstance(error, exceptions.SplitImageError):
        return error
    configuration = sys.modules.get("oslo_config.cfg")
    if configuration is not None and isinstance(error, configuration.Error):
        return exceptions.InvalidInput(what="the configuration", reason=str(error))
    return exceptions.SplitImageError(reason=f"{type(error).__name__}: {error}")


def say(message: str, hint: str = "") -> None:
    """One line, and one that helps."""
    print(f"splitimage: {terminal.line(message)}", file=sys.stderr)
    if hint:
        print(f"  hint: {terminal.line(hint)}", file=sys.stderr)

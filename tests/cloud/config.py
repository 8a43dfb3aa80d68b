"""Configuration files: what a service needs, and what a test lays over it."""

from __future__ import annotations

import configparser
import io
from collections.abc import Mapping

Sections = Mapping[str, Mapping[str, object]]


def text(sections: Sections, over: Sections, packaged: str = "") -> str:
    """An ini file.

    :param over: laid over ``sections``; an empty value takes an option out
    :param packaged: the file that a distribution ships, which both are laid over
    """
    # DEFAULT is a section like others here: nothing of it is repeated in them.
    parser = configparser.ConfigParser(interpolation=None, default_section="\0", strict=False)
    # Paste's names keep their case.
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(packaged)
    parser.read_dict(sections)
    parser.read_dict(over)
    for section in over:
        for option, value in over[section].items():
            if value == "":
                parser.remove_option(section, option)
    written = io.StringIO()
    parser.write(written)
    return written.getvalue()

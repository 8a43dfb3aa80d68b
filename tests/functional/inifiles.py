"""Options of ini files for ``devstack.sh``, line by line: all else stays as it is.

usage: inifiles.py set|get|delete [-sudo] FILE SECTION OPTION [VALUE]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def _section(lines: list[str], name: str) -> range:
    """The lines below its head; of none if it is not there."""
    heads = [number for number, line in enumerate(lines) if line.startswith("[")]
    for number, nearest in zip(heads, [*heads[1:], len(lines)], strict=False):
        if lines[number].strip() == f"[{name}]":
            return range(number + 1, nearest)
    return range(0)


def _option(lines: list[str], section: str, name: str) -> list[int]:
    is_it = re.compile(rf"{re.escape(name)}\s*=")
    return [number for number in _section(lines, section) if is_it.match(lines[number])]


def main(what: str, file: str, section: str, option: str, value: str = "") -> None:
    path = Path(file)
    # Only what sets an option makes the file.
    lines = path.read_text().splitlines() if what != "set" or path.exists() else []
    found = _option(lines, section, option)
    if what == "get":
        print(*(lines[number].partition("=")[2].strip() for number in found))
        return
    if what == "delete":
        lines = [line for number, line in enumerate(lines) if number not in found]
    elif found:
        lines[found[0]] = f"{option} = {value}"
    else:
        if f"[{section}]" not in lines:
            lines += ["", f"[{section}]"]
        lines.insert(lines.index(f"[{section}]") + 1, f"{option} = {value}")
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*(word for word in sys.argv[1:] if word != "-sudo"))

"""Tests in several processes, as ``./run test`` has them.

What is made once a session, a cloud or the demonstration's gold machine, is made
once a process: modules that share it stay together, as one group. What takes longest
comes first, or the other processes would wait for it at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath

import pytest

#: The modules of each group; any other module is a group of its own. The longest
#: work first.
GROUPS = {
    # test_wheel copies the cloud's packages.
    "cloud": r"test_(glance|nova|cloud|devstack_exercise|wheel|stream_sharing)(_\w+)?",
    "gold machine": r"test_(trees|two_machines|streams?(_\w+)?)",
    "miniature": r"test_(crash|concurrency|batch|retention)",
    "boot": r"test_(boot|demo)",
    "small": r"test_(cli|queue|conflicts)",
    "launch": "test_launch",
}
#: Fixtures that no two groups may ask for: there can be one only, or it takes minutes.
SHARED = {"cloud": "cloud", "native": "gold machine"}
_FUNCTIONAL = "functional"


def group(module: PurePath) -> str:
    """:param module: a file of tests, relative or not"""
    if _FUNCTIONAL in module.parts:
        for name, modules in GROUPS.items():
            if re.fullmatch(modules, module.stem):
                return name
    return str(module)


def order(module: PurePath) -> tuple[int, bool]:
    """Sort key of modules."""
    names = list(GROUPS)
    name = group(module)
    return (names.index(name) if name in names else len(names), _FUNCTIONAL not in module.parts)


def strayed(items: Iterable[pytest.Item]) -> list[str]:
    """Node ids of those that ask for what belongs to another group."""
    return [item.nodeid for item in items for fixture, owner in SHARED.items()
            if fixture in getattr(item, "fixturenames", ()) and _FUNCTIONAL in item.path.parts
            and group(item.path) != owner]

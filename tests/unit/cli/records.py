"""Records to show."""

from __future__ import annotations

import math
from typing import Any

from splitimage_driver.model.candidate import BASE, COMPLETED, Candidate, Image
from splitimage_driver.model.composite import (
    Answer,
    Base,
    Composite,
    Conflict,
    Mount,
    PartRef,
    System,
)
from splitimage_driver.model.part import DEPENDENCY, FILESET, SOFTWARE, Part
from splitimage_driver.model.plan import Estimate, Plan, Request, Term
from splitimage_driver.model.server import RUNNING, Server

MOUNTS = (Mount("/dev/sda1", "/", "ext4"),)


def digest(letter: str) -> str:
    return letter * 64


def part(name: str, letter: str, kind: str = SOFTWARE, **fields: Any) -> Part:
    return Part(**{"id": digest(letter), "name": name, "kind": kind, "blob": digest("b"),
                   "blob_size": 4096, "size": 3 << 20, "files": 7, "owner": "default",
                   "created": 1e9, "packages": (f"{name}=1",), **fields})


PARTS = {"apache": part("apache", "1"), "php": part("php", "2"),
         "dep.apache.php": part("dep.apache.php", "3", DEPENDENCY)}
PAGE = part("page", "4", FILESET)


def composite(**fields: Any) -> Composite:
    return Composite(**{
        "name": "lamp", "id": "c0ffee00-0000", "owner": "default", "created": 1e9,
        "system": System("debian", "12", "Debian 12", "x86_64", "dpkg"),
        "base": Base(digest("d"), 1 << 20, 3 << 30, digest("e"), MOUNTS),
        "parts": {"apache": PartRef(id=digest("1"), kind=SOFTWARE, requires=("dep.apache.php",)),
                  "php": PartRef(id=digest("2"), kind=SOFTWARE, requires=("dep.apache.php",)),
                  "dep.apache.php": PartRef(id=digest("3"), kind=DEPENDENCY, hidden=True)},
        "restore": digest("f"),
        "conflicts": (Conflict(b"etc/motd", ("apache", "php"), "they differ"),),
        "answers": (Answer(b"etc/issue", ("apache", "php"), "replace", "php"),),
        "hardware": {"architecture": "x86_64", "disk": {"size": 3 << 30, "lvm": []},
                     "drivers": [f"driver{n}" for n in range(9)]},
        "notes": ("one note",), **fields})


def image(name: str, letter: str, **fields: Any) -> Image:
    return Image(**{
        "id": f"{letter * 8}-0000", "name": name, "composite": "c0ffee00-0000",
        "parts": ("apache",), "recipe": digest("a"), "disk": digest("d"),
        "disk_size": 5 << 20, "virtual_size": 3 << 30, "manifest": digest("e"),
        "mounts": MOUNTS, "owner": "default", "created": 1e9, "last_used": 1e9, **fields})


def server(name: str = "web", **fields: Any) -> Server:
    return Server(**{
        "id": "00ff00ff00ff", "name": name, "composite": "c0ffee00-0000", "parts": ("apache",),
        "image": "1111", "disk": digest("d"), "directory": "/store/servers/00ff00ff00ff",
        "owner": "default", "created": 1e9, "pid": 7, "started": 70,
        "ports": {80: 40080, 22: 40022}, "state": RUNNING, **fields})


def candidate(name: str, kind: str = COMPLETED) -> Candidate:
    return Candidate(id=f"id of {name}", name=name, kind=kind, disk=digest("d"), disk_size=1,
                     virtual_size=1, manifest=digest("e"), mounts=MOUNTS, recipe="")


NEAREST = Estimate(candidate=candidate("lamp+apache"), match="subset", cost=2.5,
                   terms=(Term("download", 0.5), Term("inject", 2.0)), missing=3,
                   missing_bytes=3 << 20, excess=0, inject_bytes=2 << 20, fetch_bytes=0)
REFUSED = Estimate(candidate=candidate("lamp", BASE), match="base", cost=math.inf,
                   terms=(Term("download", 0.05), Term("inject", 4.0)), missing=9,
                   missing_bytes=9 << 20, excess=2, excess_bytes=1 << 10, inject_bytes=8 << 20,
                   fetch_bytes=4, refused="the content of /etc/x cannot be had")


def plan(request: Request | None = None, **fields: Any) -> Plan:
    return Plan(**{
        "request": request or Request(composite="lamp", parts=("apache", "php")),
        "composite": "c0ffee00-0000", "parts": ("apache", "dep.apache.php", "php"),
        "recipe": digest("a"), "equation": "weighted", "estimate": NEAREST,
        "considered": (NEAREST, REFUSED), "target": None, "work": None, **fields})

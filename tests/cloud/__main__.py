"""``python -m tests.cloud up | down | status``; ``./run cloud`` is the first."""

from __future__ import annotations

import argparse
import sys
import time
import tomllib
from pathlib import Path

import msgspec

from tests.cloud import CloudError
from tests.cloud.allinone import Cloud
from tests.cloud.compute import DRIVERS
from tests.cloud.state import Overrides


def overrides(path: Path) -> tuple[Overrides, dict[str, str]]:
    """Of a TOML file with a table ``["FILE".SECTION]`` a section, and
    ``[environment]``.

    :raises CloudError: it has something else
    """
    try:
        told = tomllib.loads(path.read_text())
        environment = msgspec.convert(told.pop("environment", {}), dict[str, str])
        return msgspec.convert(told, Overrides), environment
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise CloudError(f"{path}: {error}") from error


def up(cloud: Cloud, words: argparse.Namespace) -> int:
    began = time.monotonic()
    settings = cloud.settings
    if words.glance_workers is not None:
        settings = msgspec.structs.replace(settings, glance_workers=words.glance_workers)
    if words.glance_apis is not None:
        settings = msgspec.structs.replace(settings, glance_apis=words.glance_apis)
    # Kept from the last time, but a cloud for people has servers.
    hosts = (settings.hosts or 1) if words.hosts is None else words.hosts
    settings = msgspec.structs.replace(
        settings, hosts=hosts, compute_driver=words.compute_driver or settings.compute_driver)
    if words.overrides is not None:
        files, environment = overrides(words.overrides)
        settings = msgspec.structs.replace(settings, overrides=files, environment=environment)
    for name, port in words.port or ():
        if cloud.site.state.port(name) != port:
            cloud.service(name).stop()
            cloud.site.state.choose_port(name, port)
    if cloud.up(settings):
        cloud.say(f"ready after {time.monotonic() - began:.0f} s")
    else:
        cloud.say("is up already; nothing was changed")
    print(*cloud.shell_lines(), sep="\n")
    return 0


def down(cloud: Cloud, words: argparse.Namespace) -> int:
    stopped = cloud.down(words.purge)
    cloud.say(f"stopped {', '.join(stopped)}" if stopped else "is down already")
    return 0


def status(cloud: Cloud, _: argparse.Namespace) -> int:
    told = cloud.status()
    for name, state, where in told:
        print(f"{name:16} {state:10} {where}")
    return 0 if all(state == "up" for _, state, _ in told) else 1


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _hosts(text: str) -> int:
    number = int(text)
    if not 0 <= number < 10:
        raise ValueError
    return number


def _port(text: str) -> tuple[str, int]:
    name, _, port = text.partition("=")
    return name, int(port)


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="python -m tests.cloud", description=__doc__)
    commands = main.add_subparsers(required=True)
    starting = commands.add_parser("up", help="start it, or what of it does not run")
    starting.set_defaults(run=up)
    starting.add_argument("--hosts", type=_hosts, metavar="N",
                          help="compute hosts (1); 0: without Nova")
    starting.add_argument("--compute-driver", choices=sorted(DRIVERS),
                          help="Nova's stock driver, or this project's (splitimage)")
    starting.add_argument("--glance-workers", type=_at_least_one, metavar="N",
                          help="worker processes of a Glance API (1)")
    starting.add_argument("--glance-apis", type=_at_least_one, metavar="N",
                          help="Glance APIs over one database (1)")
    starting.add_argument("--overrides", type=Path, metavar="FILE",
                          help="TOML: options over those of the configuration files")
    starting.add_argument("--port", type=_port, action="append", metavar="SERVICE=PORT",
                          help="instead of a free one")
    ending = commands.add_parser("down", help="end it")
    ending.set_defaults(run=down)
    ending.add_argument("--purge", action="store_true", help="and remove what it stored")
    commands.add_parser("status", help="what of it runs").set_defaults(run=status)
    return main


def main() -> int:
    words = parser().parse_args()
    try:
        status: int = words.run(Cloud(say=lambda line: print(f"cloud: {line}", file=sys.stderr)),
                                words)
    except CloudError as error:
        if error.log:
            print(error.log, file=sys.stderr)
        print(f"cloud: {error}", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())

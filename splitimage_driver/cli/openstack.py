"""The plugin for the command ``openstack``: the same commands, below the word
``splitimage``, in the cloud that ``openstack`` is logged in to.

``openstack`` finds this module by the entry point ``openstack.cli.extension``
and the commands by ``openstack.splitimage.v1``. Its help on plugins:
https://docs.openstack.org/python-openstackclient/latest/contributor/plugins.html
Each run of ``openstack`` imports it, so it imports little itself.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitimage_driver.cli import progress, session
from splitimage_driver.cli.session import Session

if TYPE_CHECKING:
    from splitimage_driver.application import Application

API_NAME = session.NAME
API_VERSION_OPTION = "os_splitimage_api_version"
DEFAULT_API_VERSION = "1"
API_VERSIONS = (DEFAULT_API_VERSION,)


def build_option_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Global options; they have the name in them, because all plugins' options
    are taken out of the line before a command sees its own."""
    parser.add_argument(
        "--os-splitimage-api-version", metavar="<splitimage-api-version>",
        default=os.environ.get("OS_SPLITIMAGE_API_VERSION", ""),
        help=f"Version of the splitimage commands, default={DEFAULT_API_VERSION} "
             "(Env: OS_SPLITIMAGE_API_VERSION)")
    parser.add_argument(
        "--splitimage-store", type=Path, metavar="<directory>",
        help="Where splitimage keeps what it has fetched (default: clouds/NAME below "
             "$SPLITIMAGE_STORE, [store] path or ~/.local/share/splitimage)")
    parser.add_argument(
        "--splitimage-config-file", action="append", metavar="<file>",
        help="Read splitimage's options from this file, not from the default places "
             "(repeat for more)")
    parser.add_argument(
        "--splitimage-progress", choices=progress.WAYS, default=progress.AUTO,
        help="How splitimage shows progress: a bar, JSON lines, or nothing (default: auto, "
             "a bar on a terminal)")
    return parser


def make_client(instance: Any) -> Session:
    """:param instance: the client manager, logged in"""
    from splitimage_driver.cli import logs
    session.end_in_order()
    logs.join()
    options = instance.get_configuration()

    def build() -> Application:
        from splitimage_driver.application import Application
        return Application(options.get("splitimage_store"),
                           files=options.get("splitimage_config_file"),
                           connection=instance.sdk_connection)

    return Session(build, progress=options.get("splitimage_progress", progress.AUTO),
                   debug=bool(options.get("debug")))

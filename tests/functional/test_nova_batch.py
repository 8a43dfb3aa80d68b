"""Many servers at once."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.functional.novascene import Mini

if TYPE_CHECKING:
    from tests.functional.novacloud import NovaCloud

pytest_plugins = ("tests.functional.cloud", "tests.functional.novacloud",
                  "tests.functional.novascene")
pytestmark = [pytest.mark.accept, pytest.mark.must_show("nova", 9)]

Note = Callable[[str, object], None]
COMBINATIONS = (("apache", "mysql"), ("apache", "mysql", "php"), ("apache", "mysql", "php", "wiki"),
                ("redis", "wiki"), ("cache", "redis", "wiki"))
_EACH = 4
_PATIENCE = 1800.0


def test_twenty_servers_of_five_combinations_on_two_hosts(
        two_hosts: NovaCloud, mini: Mini, record_property: Note) -> None:
    before = {host.name: mini.assemblies(host) for host in two_hosts.hosts}
    known = {image["id"] for image in mini.completed()}
    began = time.monotonic()
    servers = [(parts, mini.create(*parts)) for _ in range(_EACH) for parts in COMBINATIONS]
    waiting = 0
    shown = two_hosts.hosts[0].store
    while any(two_hosts.status(server) == "BUILD" for _, server in servers):
        queued = two_hosts.splitimage("alpha", shown)("queue", "list", "-f", "json")
        if queued.status == 0:
            waiting = max(waiting, len(queued.json))
        assert time.monotonic() - began < _PATIENCE
        time.sleep(5)
    record_property("all ACTIVE after, s", round(time.monotonic() - began))
    record_property("most in one host's queue", waiting)
    assert waiting, "splitimage queue list shows none"
    images = collections.defaultdict(set)
    for parts, server in servers:
        two_hosts.wait(server)
        assert mini.tells(server, 1) == set(parts)
        images[parts].add(mini.image_of(server))
    assert all(len(found) == 1 for found in images.values()), images
    new = [image for image in mini.completed() if image["id"] not in known]
    assert len(new) == len(COMBINATIONS), "each is published once"
    made = {host.name: mini.assemblies(host) - before[host.name] for host in two_hosts.hosts}
    record_property("assemblies by host", made)
    assert sum(made.values()) == len(COMBINATIONS), "each is put together once"
    record_property("servers by host", dict(collections.Counter(
        two_hosts.where(server) for _, server in servers)))

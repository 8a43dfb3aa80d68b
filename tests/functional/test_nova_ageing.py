"""Nova's own cache of images ages as fast as it can, and images go as they may."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tests.functional.bootgold import NAMES
from tests.functional.novascene import Mini

pytest_plugins = ("tests.functional.cloud", "tests.functional.novacloud",
                  "tests.functional.novascene")
pytestmark = pytest.mark.accept

Note = Callable[[str, object], None]
#: Seconds between two looks of Nova at its cache.
_OFTEN = 5
_COMBINATIONS, _KEPT, _SERVERS = 100, 10, 4


@pytest.mark.must_show("nova", 6)
def test_servers_outlive_the_cache(mini: Mini) -> None:
    ageing = {"nova-compute.conf": {"image_cache": {
        "manager_interval": str(_OFTEN), "remove_unused_base_images": "true",
        "remove_unused_original_minimum_age_seconds": "1",
        "remove_unused_resized_minimum_age_seconds": "1"}}}
    with mini.cloud.configured(ageing):
        servers = {names: mini.boot(*names) for names in (("apache",), ("mysql",), ("php",))}
        unused = mini.boot("redis")
        host = mini.host(unused)
        for names, server in servers.items():
            assert mini.tells(server, 1) == set(names)
        before = set(host.base.iterdir())
        mini.cloud.delete(unused)
        # Its base is used by nobody any more, and goes.
        assert mini.cloud.until(lambda: before - set(host.base.iterdir()))
        for names, server in servers.items():
            mini.reboot(server)
            assert mini.tells(server, 2) == set(names)
        mini.clear()


@pytest.mark.must_show("nova", 8)
def test_retention(mini: Mini, record_property: Note) -> None:
    """Very many combinations, of which few are kept; and those of servers."""
    wanted = [names for size in (1, 2, 3, 4, 5) for names in itertools.combinations(NAMES, size)]
    limits = {"splitimage-compute.conf": {"retention": {"max_count": str(_KEPT)}}}
    servers: list[tuple[Any, tuple[str, ...]]] = []
    with mini.cloud.configured(limits):
        for number, names in enumerate(wanted[:_COMBINATIONS]):
            server = mini.boot(*names)
            if number < _SERVERS:
                servers.append((server, names))
                assert mini.tells(server, 1) == set(names)
            else:
                mini.cloud.delete(server)
        left = {image["id"] for image in mini.completed()}
        record_property("completed images left", len(left))
        used = {mini.image_of(server) for server, _ in servers}
        assert used <= left
        assert len(left) <= _KEPT + 1, "the last one is the newest"
        mini.forget()
        for server, names in servers:
            mini.reboot(server)
            assert mini.tells(server, 2) == set(names)
        mini.clear()

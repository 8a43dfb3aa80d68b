"""Completed images are bounded, and no server loses its disk by that."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from splitimage_driver.application import Application
from splitimage_driver.model.plan import Request
from splitimage_driver.model.server import Server
from splitimage_driver.servers import Wish
from tests.functional import bootgold
from tests.functional.dying import opened

Parts = tuple[str, ...]


def _combinations() -> Iterator[Parts]:
    """Of the miniature's software, small ones first."""
    for size in range(1, len(bootgold.NAMES)):
        yield from itertools.combinations(bootgold.NAMES, size)


def _request(parts: Parts) -> Request:
    return Request(composite=bootgold.NAME, parts=parts)


def _boots(application: Application, server: Server, parts: Parts) -> None:
    """From the beginning, with all its parts."""
    servers = application.servers
    servers.stop(server.id, timeout=0)
    again = servers.start(server.id)
    assert bootgold.serves(application, again) == parts
    servers.stop(server.id, timeout=0)


def _bounded(path: Path, combinations: Sequence[Parts], limit: int, launched: set[int],
             record: Callable[[str, Any], None]) -> None:
    """Assemble one after the other, some of them for servers."""
    servers: list[tuple[Server, Parts]] = []
    with opened(path, retention__max_count=limit) as application:
        store = application.store
        objects = len(list((path / "objects").rglob("?" * 64)))
        for number, parts in enumerate(combinations):
            if number in launched:
                (server,) = application.servers.launch(Wish(
                    request=_request(parts), name=f"server{number}", memory=128, cpus=1,
                    ports=(80,))).servers
                application.servers.stop(server.id, timeout=0)
                servers.append((server, parts))
            else:
                application.images.assemble(_request(parts))
            assert len(store.images()) == min(number + 1, limit)
        assert len(store.history("assembly", limit=1000)) == len(combinations)

        left = {image.name for image in store.images()}
        names = ["+".join((bootgold.NAME, *sorted(parts))) for parts in combinations]
        kept = {names[number] for number in launched}
        # Those of servers, and the last ones.
        others = [name for name in names if name not in kept]
        assert left == kept | set(others[len(others) - (limit - len(kept)):])
        assert list(store.check()) == []
        # What was pruned takes no room.
        assert len(list((path / "objects").rglob("?" * 64))) == objects + limit

        for server, parts in servers:
            _boots(application, server, parts)
        record("combinations", len(combinations))
        record("images left", len(left))
        record("servers booted afterwards", len(servers))


@pytest.mark.must_show("main-job", 6)
def test_three_combinations_with_a_limit_of_two(
        boot_store: Path, record_property: Callable[[str, Any], None]) -> None:
    _bounded(boot_store, list(itertools.islice(_combinations(), 7, 10)), 2, {0},
             record_property)


@pytest.mark.accept
@pytest.mark.must_show("main-job", 6)
def test_a_hundred_combinations_with_a_limit_of_ten(
        boot_store: Path, record_property: Callable[[str, Any], None]) -> None:
    _bounded(boot_store, list(itertools.islice(_combinations(), 100)), 10, {1, 20, 55, 99},
             record_property)


@pytest.mark.accept
@pytest.mark.must_show("main-job", 6)
def test_a_server_that_was_deleted_keeps_nothing(completed_store: Path) -> None:
    """Its image is the next to go, and an image that is used again is not."""
    with opened(completed_store, retention__max_count=2) as application:
        store = application.store
        (server,) = application.servers.launch(Wish(
            request=_request(bootgold.PAIR), memory=128, cpus=1, ports=(80,))).servers
        application.images.assemble(_request(("mysql",)))
        application.images.assemble(_request(("mail",)))
        assert {image.parts for image in store.images()} == {bootgold.PAIR, ("mail",)}
        application.servers.delete(server.id)
        application.images.assemble(_request(("mail",)))  # used again
        application.images.assemble(_request(("wiki",)))
        assert {image.parts for image in store.images()} == {("mail",), ("wiki",)}
        assert not store.is_local(server.disk)
        assert [image.parts for image in store.prune_images(max_count=1)] == [("mail",)]
        assert list(store.check()) == []

"""nova-compute is killed at awkward moments, and starts again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.functional.novascene import PARTS, Mini

if TYPE_CHECKING:
    from tests.functional.novacloud import Host

pytest_plugins = ("tests.functional.cloud", "tests.functional.novacloud",
                  "tests.functional.novascene")
pytestmark = [pytest.mark.accept, pytest.mark.must_show("nova", 5)]

#: Each test's own: it is not to be there before.
COMBINATIONS = iter((("cache", "mail", "mysql"), ("cache", "mail", "php"),
                     ("cache", "mail", "redis"), ("cache", "mail", "wiki")))
Moment = Callable[[Mini, Any], bool]


def assembling(mini: Mini, host: Host) -> bool:
    return bool(host.appliances())


def publishing(mini: Mini, host: Host) -> bool:
    return any(image["status"] == "saving" for image in mini.completed())


def booting(mini: Mini, host: Host) -> bool:
    return len(host.guests()) > 1


@contextlib.contextmanager
def killed(mini: Mini, host: Host, moment: Moment) -> Iterator[None]:
    """In the block a launch is asked for; after it nova-compute runs again."""
    yield
    assert mini.cloud.until(lambda: moment(mini, host)), "the moment has not come"
    host.kill()
    assert mini.cloud.up() == [host.compute.name]


@pytest.mark.parametrize("moment", [assembling, publishing, booting])
def test_nothing_is_lost_and_nothing_left(mini: Mini, moment: Moment) -> None:
    host = mini.cloud.hosts[0]
    with mini.cloud.only(host):
        bystander = mini.boot(*PARTS)
        assert mini.tells(bystander, 1) == set(PARTS)
        parts = next(COMBINATIONS)
        with killed(mini, host, moment):
            server = mini.create(*parts)
        # Nova itself gives up on it; or it was so far that it runs.
        assert mini.cloud.until(lambda: mini.cloud.status(server) in ("ERROR", "ACTIVE"))
        assert not [image for image in mini.completed() if image["status"] != "active"]
        assert not list((host.store / "tmp").glob("*"))
        assert mini.cloud.until(lambda: not host.appliances())
        again = mini.boot(*parts)
        assert mini.tells(again, 1) == set(parts)
        mini.forget()
        mini.reboot(bystander)
        assert mini.tells(bystander, 2) == set(PARTS)
        mini.cloud.delete(server)
        assert not host.disk(server).parent.exists()

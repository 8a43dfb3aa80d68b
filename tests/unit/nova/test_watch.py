from __future__ import annotations

import threading

import pytest

from splitimage_driver.nova.watch import Watch


class Servers:
    """:ivar rounds: how often each has to be looked at"""

    def __init__(self, **rounds: int) -> None:
        self.rounds = rounds
        self.done = threading.Event()

    def look(self, server: str) -> bool:
        self.rounds[server] -= 1
        if not any(rounds > 0 for rounds in self.rounds.values()):
            self.done.set()
        return self.rounds[server] > 0


def test_each_is_looked_after_until_it_is_done() -> None:
    servers = Servers(a=1, b=3)
    watch = Watch(servers.look, pause=0.001)
    for name in servers.rounds:
        watch.add(name)
    assert servers.done.wait(30)
    threads = [each for each in threading.enumerate() if each.name == "splitimage-layouts"]
    for thread in threads:
        thread.join(30)
    assert servers.rounds == {"a": 0, "b": 0}
    assert not [name for name in servers.rounds if name in watch]
    servers.rounds["a"] = 1
    servers.done.clear()
    watch.add("a")
    assert servers.done.wait(30), "there is a thread again"


@pytest.fixture
def idle() -> float:
    """Seconds after which the thread's own first round would be."""
    return 3600.0


def test_one_that_fails_is_tried_again_and_holds_up_no_other(idle: float) -> None:
    seen: list[str] = []

    def look(server: str) -> bool:
        seen.append(server)
        if server == "bad" and seen.count("bad") < 2:
            raise RuntimeError("the hypervisor is away")
        return False

    watch = Watch(look, pause=idle)
    watch.add("bad")
    watch.add("good")
    watch.round()
    watch.round()
    watch.round()
    assert seen == ["bad", "good", "bad"]


def test_one_that_is_added_again_meanwhile_stays(idle: float) -> None:
    def look(server: str) -> bool:
        if len(seen) == 0:
            watch.add(server)
        seen.append(server)
        return False

    seen: list[str] = []
    watch = Watch(look, pause=idle)
    watch.add("a")
    watch.round()
    assert "a" in watch
    watch.round()
    assert "a" not in watch

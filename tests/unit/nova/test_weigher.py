"""The weigher, with as much of Nova as it touches."""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from oslo_config import cfg

from splitimage_driver.nova import holdings
from splitimage_driver.nova.holdings import HeldComposite, HeldImage, HeldPart, Holdings, mark

LAMP, SERVER = "lamp's id", "server's id"


class BuildRequestNotFound(Exception):
    pass


class Nova:
    """:ivar building: metadata of servers that are being created, by id
    :ivar there: metadata and system metadata of the others
    :ivar asked: what was looked up
    """

    def __init__(self) -> None:
        self.conf = cfg.ConfigOpts()
        self.conf([])
        self.building: dict[str, dict[str, str]] = {}
        self.there: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
        self.asked: list[str] = []

    def modules(self) -> dict[str, Any]:
        def module(name: str, **content: Any) -> Any:
            made = types.ModuleType(name)
            vars(made).update(content)
            return made

        utils = module("utils", get_weight_multiplier=lambda host, name, default: float(
            host.metadata.get(name, default)))
        weights = module("weights", BaseHostWeigher=type("BaseHostWeigher", (), {
            "minval": None, "maxval": None}))
        exception = module("exception", BuildRequestNotFound=BuildRequestNotFound)
        context = module("context", get_admin_context=lambda: "admin",
                         target_cell=self._target_cell)
        objects = module(
            "objects", BuildRequest=types.SimpleNamespace(get_by_instance_uuid=self._request),
            InstanceMapping=types.SimpleNamespace(get_by_instance_uuid=self._mapping),
            Instance=types.SimpleNamespace(get_by_uuid=self._instance))
        conf = module("conf", CONF=self.conf)
        return {"nova": module("nova", conf=conf, context=context, exception=exception,
                               objects=objects),
                "nova.conf": conf, "nova.scheduler": module("scheduler", utils=utils,
                                                            weights=weights)}

    def _request(self, context: str, uuid: str) -> Any:
        self.asked.append("request")
        if uuid not in self.building:
            raise BuildRequestNotFound
        return types.SimpleNamespace(instance=types.SimpleNamespace(metadata=self.building[uuid]))

    def _mapping(self, context: str, uuid: str) -> Any:
        self.asked.append("mapping")
        return types.SimpleNamespace(cell_mapping="cell1")

    @contextlib.contextmanager
    def _target_cell(self, context: str, cell: str) -> Iterator[str]:
        yield f"{context} of {cell}"

    def _instance(self, context: str, uuid: str, expected_attrs: list[str]) -> Any:
        assert context == "admin of cell1"
        self.asked.append("instance")
        metadata, system = self.there[uuid]
        return types.SimpleNamespace(metadata=metadata, system_metadata=system)


@pytest.fixture
def nova(monkeypatch: pytest.MonkeyPatch) -> Nova:
    made = Nova()
    for name, module in made.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "splitimage_driver.nova.weigher", raising=False)
    return made


@pytest.fixture
def weigh(nova: Nova) -> Iterator[Callable[..., list[float]]]:
    weigher = importlib.import_module("splitimage_driver.nova.weigher").SplitImageWeigher()

    def found(*hosts: Any, image: str | None = LAMP,
              extra_specs: dict[str, str] | None = None) -> list[float]:
        spec = types.SimpleNamespace(
            image=image and Known(id=image), project_id="alpha", instance_uuid=SERVER,
            flavor=types.SimpleNamespace(extra_specs=extra_specs or {}))
        weights: list[float] = weigher.weigh_objects(
            [types.SimpleNamespace(obj=host) for host in hosts], spec)
        return weights

    yield found
    sys.modules.pop("splitimage_driver.nova.weigher", None)


class Known(types.SimpleNamespace):
    """Of Nova's objects: which of its fields are set."""

    def __contains__(self, name: str) -> bool:
        return name in vars(self)


def host(*here: str, **metadata: str) -> Any:
    """:param metadata: of its aggregate"""
    found = Holdings((HeldComposite(mark(LAMP), 400, "base" in here, False, (
        HeldPart("apache", 30, "apache" in here), HeldPart("php", 20, "php" in here))),), (
        (HeldImage(mark("made"), mark("alpha"), mark(LAMP), (1,), (), 420, True, True),)
        if "made" in here else ()))
    return types.SimpleNamespace(stats={holdings.KEY: holdings.pack(found)}, metadata=metadata)


def bare() -> Any:
    """A host with another driver."""
    return types.SimpleNamespace(stats={"uptime": None}, metadata={})


def test_a_new_server_goes_by_its_metadata(nova: Nova, weigh: Callable[..., list[float]]) -> None:
    nova.building[SERVER] = {"splitimage:parts": "php"}
    assert weigh(host("base"), bare(), host("php", "base"), host("apache")) == [400, 0, 420, 0]
    assert nova.asked == ["request"]


def test_or_by_its_flavor(nova: Nova, weigh: Callable[..., list[float]]) -> None:
    nova.building[SERVER] = {}
    assert weigh(host("apache"), host("php"), extra_specs={"splitimage:parts": "php"}) == [0, 20]


def test_a_server_that_moves_goes_by_its_image(
        nova: Nova, weigh: Callable[..., list[float]]) -> None:
    nova.there[SERVER] = ({"splitimage:parts": "php"}, {"composed_image_ref": "made"})
    assert weigh(host("base", "php"), host("made")) == [0, 420]
    assert nova.asked == ["request", "mapping", "instance"]


def test_one_that_is_built_on_another_host_goes_by_its_metadata(
        nova: Nova, weigh: Callable[..., list[float]]) -> None:
    nova.there[SERVER] = ({"splitimage:parts": "php"}, {})
    assert weigh(host("base", "php"), host("base")) == [420, 400]


@pytest.mark.parametrize("image", [None, "cirros"])
def test_for_other_images_nothing_is_asked(
        nova: Nova, weigh: Callable[..., list[float]], image: str | None) -> None:
    assert weigh(host("base"), bare(), image=image) == [0, 0]
    assert nova.asked == []


def test_with_a_multiplier_of_0_nothing_is_asked(
        nova: Nova, weigh: Callable[..., list[float]]) -> None:
    nova.building[SERVER] = {"splitimage:parts": "php"}
    nova.conf.set_override("weight_multiplier", 0.0, "splitimage")
    assert weigh(host("base"), host()) == [0, 0] and nova.asked == []
    assert weigh(host("base"), host(splitimage_weight_multiplier="2")) == [400, 0]


def test_whatever_fails_the_server_is_placed(
        nova: Nova, weigh: Callable[..., list[float]],
        caplog: pytest.LogCaptureFixture) -> None:
    assert weigh(host("base"), host()) == [0, 0]  # there is no such server
    assert "without regard" in caplog.text
    nova.building[SERVER] = {"splitimage:prats": "php"}
    assert weigh(host("base"), host()) == [0, 0]
    broken = types.SimpleNamespace(stats={holdings.KEY: "1:?"}, metadata={})
    nova.building[SERVER] = {"splitimage:parts": "php"}
    assert weigh(broken, host("php"), types.SimpleNamespace(stats=None, metadata={})) == [0, 20, 0]


def test_the_multiplier(nova: Nova) -> None:
    weigher = importlib.import_module("splitimage_driver.nova.weigher").SplitImageWeigher()
    assert weigher.minval == 0 and weigher.maxval is None
    assert weigher.weight_multiplier(bare()) == 1.0
    assert weigher.weight_multiplier(host(splitimage_weight_multiplier="3")) == 3.0
    sys.modules.pop("splitimage_driver.nova.weigher")

"""The command in this process, over an application that only notes what it
is asked."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import pytest

import splitimage_driver.application
from splitimage_driver import exceptions
from splitimage_driver.cli import logs, main, session


class Done(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def application(tmp_path: Path) -> Any:
    """Its services are mocks of their real classes: a call that does not fit
    fails."""
    from splitimage_driver.batches import BatchService
    from splitimage_driver.composites import CompositeService
    from splitimage_driver.deliveries import DeliveryService
    from splitimage_driver.plans import PlanService
    from splitimage_driver.servers import ServerService
    from splitimage_driver.service import ImageService
    from splitimage_driver.store.base import Store

    store = mock.create_autospec(Store, instance=True, location="/store")
    store.usable.side_effect = functools.partial(Store.usable, store)
    store.composites.return_value = []
    store.composite_names.return_value = {}
    store.part.side_effect = exceptions.NotFound(kind="part", name="it", where="/store")
    store.parts.return_value = []
    store.usable.side_effect = functools.partial(Store.usable, store)
    store.images.return_value = []
    images = mock.create_autospec(ImageService, instance=True)
    images.plans = mock.create_autospec(PlanService, instance=True)
    images.deliveries = mock.create_autospec(DeliveryService, instance=True)
    return SimpleNamespace(
        store=store, images=images,
        composites=mock.create_autospec(CompositeService, instance=True),
        servers=mock.create_autospec(ServerService, instance=True),
        batches=mock.create_autospec(BatchService, instance=True),
        project="default", path=tmp_path, conf=mock.sentinel.conf, opened=[], close=mock.Mock(),
        in_cloud=False,
        choose_image_store=mock.Mock(), assemble_later=mock.Mock())


@pytest.fixture
def run(application: Any, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command, by its words."""
    def opened(path: Path | None, *, files: Any, project: str | None, cloud: str | None) -> Any:
        application.opened.append((path, files, project, cloud))
        return application

    monkeypatch.setattr(splitimage_driver.application, "Application", opened)
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)
    monkeypatch.setattr(session, "_SIGNALS", ())
    monkeypatch.setenv("COLUMNS", "80")

    def run_(*words: str | Path) -> Done:
        status = main.main([str(word) for word in words])
        said = capsys.readouterr()
        return Done(status, said.out, said.err)

    return run_

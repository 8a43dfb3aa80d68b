"""Which store a command gets, where, and who acts."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from splitimage_driver import exceptions, store
from splitimage_driver.application import Application, assemble_elsewhere, launch_elsewhere


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of whoever runs the tests."""
    for name in ("SPLITIMAGE_STORE", "OS_CLOUD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path / "splitimage"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    """What opens a store; the store belongs to whoever is logged in."""
    found = mock.Mock(return_value=mock.Mock(project="of the login"))
    monkeypatch.setattr(store, "open_store", found)
    return found


def application(*, conf: str = "", **given: Any) -> Application:
    path = Path(os.environ["XDG_DATA_HOME"]) / "splitimage.conf"
    path.write_text(conf)
    return Application(files=[str(path)], **given)


def connection(name: str) -> Any:
    return SimpleNamespace(config=SimpleNamespace(name=name))


def test_without_a_cloud_the_store_is_a_directory(home: Path, opened: mock.Mock) -> None:
    opened.return_value.project = ""
    found = application()
    assert found.path == home
    assert found.store is opened.return_value
    opened.assert_called_once_with(found.conf, home, driver="local", cloud=None, connection=None,
                                   servers=None)
    assert found.project == "default"
    assert application(project="mine").project == "mine"
    assert application(conf="[store]\nproject = theirs\n").project == "theirs"


@pytest.mark.parametrize(("conf", "environment", "given", "cloud"), [
    ("", {}, {"cloud": "one"}, "one"),
    ("", {"OS_CLOUD": "two"}, {"cloud": "one"}, "one"),
    ("[store]\ndriver = glance\n[glance]\ncloud = three\n", {}, {}, "three"),
    ("[store]\ndriver = glance\n[glance]\ncloud = three\n", {"OS_CLOUD": "two"}, {}, "three"),
    ("[store]\ndriver = glance\n[glance]\ncloud = three\n", {}, {"cloud": "one"}, "one"),
    ("[store]\ndriver = glance\n", {"OS_CLOUD": "two"}, {}, "two"),
    ("[store]\ndriver = glance\n", {}, {}, None),
])
def test_a_cloud_has_a_directory_and_a_project_of_its_own(
        conf: str, environment: dict[str, str], given: dict[str, Any], cloud: str | None,
        home: Path, opened: mock.Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = application(conf=conf, **given)
    assert found.path == home / "clouds" / (cloud or "envvars")
    assert found.project == "of the login"
    opened.assert_called_once_with(found.conf, found.path, driver="glance", cloud=cloud,
                                   connection=None, servers=None)


def test_a_cloud_of_the_environment_alone_is_not_meant(home: Path, opened: mock.Mock,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there for other programs."""
    monkeypatch.setenv("OS_CLOUD", "two")
    found = application()
    assert found.path == home
    assert found.store is opened.return_value
    assert opened.call_args.kwargs["driver"] == "local"


def test_a_connection_is_a_cloud(home: Path, opened: mock.Mock) -> None:
    made = connection("one")
    found = application(connection=made, servers=list)
    assert found.path == home / "clouds" / "one"
    assert found.store is opened.return_value
    opened.assert_called_once_with(found.conf, found.path, driver="glance", cloud=None,
                                   connection=made, servers=list)
    assert application(connection=connection("")).path == home / "clouds" / "envvars"


def test_only_the_directory_that_is_named_is_taken_as_it_is(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others may be a local store."""
    assert application(cloud="one", path=tmp_path / "here").path == tmp_path / "here"
    assert application(cloud="one", conf="[store]\npath = /srv\n").path == Path("/srv/clouds/one")
    monkeypatch.setenv("SPLITIMAGE_STORE", "/var/images")
    assert application(cloud="one").path == Path("/var/images/clouds/one")
    assert application().path == Path("/var/images")


@pytest.mark.parametrize("name", ["../..", "a/b", ".", ".."])
def test_a_name_is_one_directory(name: str, home: Path) -> None:
    assert application(cloud=name).path.parent == home / "clouds"
    assert application(cloud=name).path.resolve().parent == home / "clouds"


def test_a_project_is_not_for_a_command_to_choose_in_a_cloud() -> None:
    with pytest.raises(exceptions.InvalidInput, match="the login"):
        application(cloud="one", project="other")


def test_parts_go_to_the_store_that_is_named() -> None:
    found = application(cloud="one")
    found.choose_image_store("fast")
    assert found.conf.glance.store == "fast"
    with pytest.raises(exceptions.InvalidInput, match="store is local"):
        application().choose_image_store("fast")


def test_a_store_that_was_opened_is_closed(opened: mock.Mock) -> None:
    found = application()
    closing = opened.return_value.close
    found.close()
    closing.assert_not_called()
    assert found.store is opened.return_value
    found.close()
    closing.assert_called_once_with()


@pytest.mark.parametrize("work", [
    lambda again: launch_elsewhere(again, mock.Mock(), mock.Mock(), None),
    lambda again: assemble_elsewhere(again, mock.Mock())])
def test_work_elsewhere_is_in_the_same_cloud(opened: mock.Mock, work: Callable[..., object],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process that has only what can be pickled."""
    from splitimage_driver.store.glance import http
    monkeypatch.setattr(http, "settings", lambda made: {"of": made.config.name})
    monkeypatch.setattr(http, "connection", lambda found: connection(found["of"]))
    for given in ({"cloud": "one"}, {"connection": connection("one")}):
        opened.reset_mock()
        opened.side_effect = exceptions.CloudUnreachable(where="one", reason="gone")
        here = application(**given)
        here.choose_image_store("fast")
        with pytest.raises(exceptions.CloudUnreachable):
            work(pickle.loads(pickle.dumps(here._again())))  # noqa: S301 (its own)
        [call] = opened.call_args_list
        assert call.args[0].glance.store == "fast"
        assert call.args[1] == application(cloud="one").path
        told = call.kwargs["cloud"] or call.kwargs["connection"].config.name
        assert told == "one"

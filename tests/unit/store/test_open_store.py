from __future__ import annotations

import types
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from oslo_config import cfg
from stevedore import driver, extension

from splitimage_driver import exceptions
from splitimage_driver.conf import retention as retention_conf
from splitimage_driver.conf import store as store_conf
from splitimage_driver.store import NAMESPACE, open_store
from splitimage_driver.store.local import LocalStore


def _conf(**changed: Any) -> Any:
    conf = cfg.ConfigOpts()
    conf.register_opts(store_conf.OPTS, group=store_conf.GROUP)
    conf.register_opts(retention_conf.OPTS, group=retention_conf.GROUP)
    conf.register_opts([cfg.IntOpt("max_parallel", default=3),
                        cfg.IntOpt("max_scratch_bytes", default=7)], group="assembly")
    conf([], default_config_files=[])
    for name, value in changed.items():
        conf.set_override(name, value, group="store")
    return conf


def test_the_driver_gets_its_own_options(tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    entry_point = metadata.EntryPoint("local", "splitimage_driver.store.local:LocalStore",
                                      NAMESPACE)
    make_instance = driver.DriverManager.make_test_instance

    def manager(namespace: str, name: str, **_: Any) -> Any:
        assert (namespace, name) == (NAMESPACE, "local")
        return make_instance(
            extension.Extension(name, entry_point, LocalStore, None), namespace=namespace)

    monkeypatch.setattr("splitimage_driver.plugins.driver.DriverManager", manager)
    store = open_store(_conf(), tmp_path / "new" / "store")
    assert isinstance(store, LocalStore)
    assert store.location == str(tmp_path / "new" / "store")
    assert (store._queue.places, store._queue.room) == (3, 7)
    assert store.composites() == []
    store.close()


def test_a_driver_gets_the_group_that_has_its_name(tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """And the login, which only some have a use for."""
    plugin = mock.Mock()
    monkeypatch.setattr("splitimage_driver.plugins.load", lambda *_: plugin)
    conf = _conf()
    conf.register_opts([cfg.StrOpt("place", default="here")], group="elsewhere")
    made = open_store(conf, tmp_path, driver="elsewhere", cloud="one", connection="two")
    assert made is plugin.opened.return_value
    [opening] = plugin.opened.call_args.args
    assert opening.own.place == "here"
    assert (opening.path, opening.cloud, opening.connection) == (tmp_path, "one", "two")
    assert (opening.options.grace, opening.retention.max_count, opening.max_parallel) == (
        3600, 100, 3)
    open_store(conf, tmp_path, driver="another")
    [opening] = plugin.opened.call_args.args
    assert (opening.own, opening.cloud, opening.connection) == (None, None, None)


def test_an_unknown_driver_is_named(tmp_path: Path) -> None:
    with pytest.raises(exceptions.PluginLoadFailed, match=r"nosuch of splitimage\.stores"):
        open_store(_conf(driver="nosuch"), tmp_path)


def test_a_driver_that_does_not_load_is_named(tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    def manager(_namespace: str, name: str, *, on_load_failure_callback: Any, **_: Any) -> Any:
        on_load_failure_callback(None, types.SimpleNamespace(name=name),
                                 ImportError("no module named boto"))

    monkeypatch.setattr("splitimage_driver.plugins.driver.DriverManager", manager)
    with pytest.raises(exceptions.PluginLoadFailed, match="no module named boto"):
        open_store(_conf(), tmp_path)


@pytest.mark.parametrize("module", [store_conf, retention_conf])
def test_every_option_is_explained(module: Any) -> None:
    for option in module.OPTS:
        assert len(option.help) > 40, option.name


def test_defaults() -> None:
    conf = _conf()
    assert dict(conf.store) == {"driver": "local", "path": None, "project": "default",
                                "lock_timeout": 3600.0, "grace": 3600,
                                "minimum_free": 67108864}
    assert dict(conf.retention) == {"max_age": 0, "max_count": 100, "max_bytes": 0}

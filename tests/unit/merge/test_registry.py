from __future__ import annotations

from typing import Any

import pytest
from stevedore import extension

from splitimage_driver import exceptions
from splitimage_driver.merge import accounts, lines, registry


def plugin(name: str, kind: type, obj: object = None) -> extension.Extension[Any]:
    return extension.Extension(name, None, kind, obj)  # type: ignore[arg-type]


def manager(*plugins: extension.Extension[Any]) -> extension.ExtensionManager[Any]:
    return extension.ExtensionManager.make_test_instance(
        list(plugins), namespace=registry.NAMESPACE)


def test_mergers_are_made_and_sorted_by_name() -> None:
    ready = lines.Shells()
    found = registry.load(manager(plugin("shells", lines.Shells, ready),
                                  plugin("group", accounts.Group)))
    assert [type(merger) for merger in found] == [accounts.Group, lines.Shells]
    assert found[1] is ready


def test_merger_for() -> None:
    among = (accounts.Group(), lines.Shells())
    assert registry.merger_for(b"etc/shells", among) is among[1]
    assert registry.merger_for(b"etc/shells-", among) is None
    assert registry.merger_for(b"etc/shells\n", among) is None


def test_none_installed_is_an_error() -> None:
    with pytest.raises(exceptions.PluginLoadFailed, match=r"splitimage\.mergers"):
        registry.load(manager())


def test_what_is_no_merger_is_named() -> None:
    with pytest.raises(exceptions.PluginLoadFailed, match=r"plugin odd .*not a Merger"):
        registry.load(manager(plugin("odd", dict)))


def test_a_plugin_that_fails_to_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        name = "broken"

        def load(self) -> None:
            raise ImportError("no module named nothing")

    monkeypatch.setattr(extension.ExtensionManager, "list_entry_points", lambda self: [Broken()])
    with pytest.raises(exceptions.PluginLoadFailed,
                       match=r"plugin broken of splitimage\.mergers .*no module named nothing"):
        registry.load()

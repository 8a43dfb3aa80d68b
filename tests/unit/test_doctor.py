from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from splitimage_driver import doctor, exceptions, process
from splitimage_driver.launch import accelerator


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """An empty root directory."""
    (tmp_path / "boot").mkdir()
    (tmp_path / "lib/modules").mkdir(parents=True)
    return tmp_path


def install(host: Path, version: str, *, modules: bool = True) -> Path:
    kernel = host / "boot" / f"vmlinuz-{version}"
    kernel.touch()
    if modules:
        (host / "lib/modules" / version).mkdir()
        (host / "lib/modules" / version / "modules.dep").touch()
    return kernel


def unreadable(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    access = os.access
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: (
        Path(path) not in paths and access(path, mode)))


def test_the_newest_kernel_with_modules(host: Path) -> None:
    install(host, "6.1.0-9-cloud-amd64")
    expected = install(host, "6.1.0-56-cloud-amd64")
    install(host, "6.12.0-1-amd64", modules=False)
    install(host, "7.0.0-xen-amd64")
    install(host, "9.9.9-other")
    assert doctor.kernel(host, {}) == expected


def test_a_kernel_beside_its_modules_comes_first(host: Path) -> None:
    install(host, "6.1.0-9-amd64")
    expected = host / "lib/modules/5.14.0-1.x86_64/vmlinuz"
    expected.parent.mkdir()
    expected.touch()
    assert doctor.kernel(host, {}) == expected


def test_the_newest_kernel_must_be_readable(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """supermin takes the newest, whether it can read it or not."""
    install(host, "6.1.0-1-amd64")
    newest = install(host, "6.1.0-2-amd64")
    unreadable(monkeypatch, newest)
    with pytest.raises(exceptions.KernelUnreadable) as caught:
        doctor.kernel(host, {})
    assert str(newest) in str(caught.value) and "not readable" in str(caught.value)
    assert "chmod" not in str(caught.value) + caught.value.advice


def test_no_kernel(host: Path) -> None:
    with pytest.raises(exceptions.KernelUnreadable, match="no /boot/vmlinuz"):
        doctor.kernel(host, {})


def test_the_environment_wins(host: Path) -> None:
    install(host, "6.1.0-1-amd64")
    own = host / "mine"
    with pytest.raises(exceptions.KernelUnreadable, match="does not exist"):
        doctor.kernel(host, {"SUPERMIN_KERNEL": str(own)})
    own.touch()
    assert doctor.kernel(host, {"SUPERMIN_KERNEL": str(own)}) == own
    fixed = host / "appliance"
    fixed.mkdir()
    path = f"/nowhere:{fixed}"
    environment = {"SUPERMIN_KERNEL": str(own), "LIBGUESTFS_PATH": path}
    assert doctor.kernel(host, environment) == own, "not a fixed appliance"
    (fixed / "README.fixed").touch()
    (fixed / "kernel").touch()
    assert doctor.kernel(host, environment) == fixed / "kernel"


def test_modules_elsewhere(host: Path) -> None:
    expected = install(host, "6.1.0-1-amd64", modules=False)
    (host / "modules.dep").touch()
    assert doctor.kernel(host, {"SUPERMIN_MODULES": str(host)}) == expected


# -- checks -----------------------------------------------------------------------

@pytest.fixture
def conf() -> Any:
    return types.SimpleNamespace(
        launch=types.SimpleNamespace(qemu="qemu-system-x86_64", uefi_code="/no/code",
                                     uefi_variables="/no/variables"),
        assembly=types.SimpleNamespace(accelerator="auto"),
        store=types.SimpleNamespace(minimum_free=1 << 20))


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch, conf: Any, tmp_path: Path) -> Any:
    kvm = tmp_path / "kvm"
    kvm.touch()
    conf.launch.uefi_code = conf.launch.uefi_variables = str(kvm)
    monkeypatch.setattr(process, "find", lambda tool: f"/usr/bin/{tool}")
    monkeypatch.setattr(doctor.importlib.util, "find_spec",
                        lambda name: types.SimpleNamespace(origin=f"/lib/{name}.py"))
    monkeypatch.setattr(doctor, "kernel", lambda: Path("/boot/vmlinuz-1"))
    monkeypatch.setattr(doctor, "_KVM", kvm)
    monkeypatch.setattr(accelerator, "choose", lambda wanted, qemu: "kvm")
    monkeypatch.setattr(doctor.shutil, "disk_usage",
                        lambda path: types.SimpleNamespace(free=100 << 30))
    return conf


def found(conf: Any, place: Path) -> dict[str, doctor.Check]:
    checks = list(doctor.checks(conf, place))
    assert len({check.name for check in checks}) == len(checks)
    for check in checks:
        assert check.detail
        assert (check.ok is True) == (check.mend == ""), "every finding has its remedy"
        assert "chmod" not in check.mend
    return {check.name: check for check in checks}


def test_a_healthy_host(healthy: Any, tmp_path: Path) -> None:
    checks = found(healthy, tmp_path / "not" / "there" / "yet")
    assert all(check.ok for check in checks.values())
    assert {"python", "qemu-system-x86_64", "qemu-img", "libguestfs binding", "appliance kernel",
            "accelerator", "UEFI firmware", "store", "appliance cache"} <= set(checks)
    assert checks["accelerator"].detail.startswith("kvm")


def test_missing_tools_name_their_package(
        healthy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(tool: str) -> str:
        raise exceptions.ToolMissing(tool=tool, package=f"{tool}-package")

    def choose(wanted: str, qemu: str) -> str:
        return find(qemu)

    monkeypatch.setattr(process, "find", find)
    monkeypatch.setattr(accelerator, "choose", choose)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    checks = found(healthy, tmp_path)
    for tool in ("qemu-system-x86_64", *doctor.TOOLS):
        assert checks[tool].ok is False
        assert checks[tool].mend == f"apt-get install {tool}-package"
    assert checks["libguestfs binding"].ok is False
    assert "python3-guestfs" in checks["libguestfs binding"].mend
    assert checks["accelerator"].ok is False


def test_an_unreadable_kernel(healthy: Any, tmp_path: Path,
                              monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel() -> Path:
        raise exceptions.KernelUnreadable(reason="/boot/vmlinuz-1 is not readable")

    monkeypatch.setattr(doctor, "kernel", kernel)
    check = found(healthy, tmp_path)["appliance kernel"]
    assert (check.ok, check.detail) == (False, "/boot/vmlinuz-1 is not readable")


def test_emulation_is_a_warning(healthy: Any, tmp_path: Path,
                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "choose", lambda wanted, qemu: "tcg")
    assert "no guest runs" in found(healthy, tmp_path)["accelerator"].detail
    assert "kvm group" not in found(healthy, tmp_path)
    unreadable(monkeypatch, doctor._KVM)
    healthy.launch.uefi_code = "/no/code"
    checks = found(healthy, tmp_path)
    assert checks["accelerator"].ok is None and checks["kvm group"].ok is None
    assert checks["UEFI firmware"].ok is None
    monkeypatch.setattr(doctor, "_KVM", tmp_path / "absent")
    checks = found(healthy, tmp_path)
    assert "no /dev/kvm" in checks["accelerator"].detail and "kvm group" not in checks
    healthy.assembly.accelerator = "tcg"
    assert found(healthy, tmp_path)["accelerator"].ok is True


@pytest.mark.parametrize(("free", "store", "cache"), [
    (100 << 30, True, True), (2 << 30, None, True), (1 << 29, None, None),
    (1 << 20, False, None), (0, False, False)])
def test_room(healthy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
              free: int, store: bool | None, cache: bool | None) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=free))
    checks = found(healthy, tmp_path)
    assert (checks["store"].ok, checks["appliance cache"].ok) == (store, cache)


def test_a_store_of_someone_else(healthy: Any, tmp_path: Path,
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    unreadable(monkeypatch, tmp_path)
    check = found(healthy, tmp_path / "store")["store"]
    assert check.ok is False and "not writable" in check.detail


@pytest.mark.parametrize(("gid", "mode", "groups", "mend"), [
    (108, 0o660, [5], "usermod --append --groups kvm"),
    (108, 0o600, [5], "udev"), (109, 0o660, [5], "udev"), (108, 0o660, [108], "udev")])
def test_only_the_group_kvm_is_to_be_joined(
        monkeypatch: pytest.MonkeyPatch, gid: int, mode: int, groups: list[int],
        mend: str) -> None:
    device = types.SimpleNamespace(st_gid=gid, st_mode=mode)
    monkeypatch.setattr(doctor, "_KVM", types.SimpleNamespace(stat=lambda: device))
    monkeypatch.setattr(doctor.grp, "getgrnam", lambda name: types.SimpleNamespace(gr_gid=108))
    monkeypatch.setattr(doctor.os, "getgid", lambda: 1000)
    monkeypatch.setattr(doctor.os, "getgroups", lambda: groups)
    assert mend in doctor._kvm_group().mend


def test_a_cloud_answers_or_says_why_not() -> None:
    assert doctor.cloud(lambda: "project x of cloud y") == doctor.Check(
        name="cloud", ok=True, detail="project x of cloud y")

    def refused() -> str:
        raise exceptions.NotPermitted(where="cloud y", what="log in", reason="wrong password")

    check = doctor.cloud(refused)
    assert (check.ok, check.detail) == (False, "cloud y does not permit to log in: wrong password")
    assert "log in as somebody" in check.mend


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where packages are installed; Nova is, with nothing in it yet."""
    (tmp_path / "nova-34.0.0.dist-info").mkdir()
    (tmp_path / "nova-34.0.0.dist-info/METADATA").write_text("Name: nova\nVersion: 34.0.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nova", raising=False)
    return tmp_path


def shim(site: Path) -> Path:
    place = site / "nova/virt/splitimage"
    place.mkdir(parents=True)
    (place / "__init__.py").touch()
    return place


def test_nothing_is_said_of_nova_where_there_is_none() -> None:
    assert not list(doctor._nova())


def test_nova_finds_the_compute_driver(site: Path) -> None:
    place = shim(site)
    (site / "nova/__init__.py").touch()
    (check,) = doctor._nova()
    assert check.ok and str(place) in check.detail


def test_nova_does_not_find_it(site: Path) -> None:
    (site / "nova").mkdir()
    (site / "nova/__init__.py").touch()
    (check,) = doctor._nova()
    assert check.ok is None and check.mend.endswith(f" {site}/nova/virt/splitimage")


def test_a_nova_that_is_elsewhere_is_hidden(site: Path) -> None:
    shim(site)
    (check,) = doctor._nova()
    assert check.ok is False and str(site / "nova") in check.detail
    assert f"rmdir {site}/nova/virt {site}/nova;" in check.mend

"""The DevStack plugin, sourced as DevStack does it, on a directory instead of a
host: ``devstack.sh`` beside this file has the functions that it calls."""

from __future__ import annotations

import ast
import configparser
import filecmp
import importlib.metadata
import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from oslo_config import cfg

from splitimage_driver import conf as configuration
from splitimage_driver.conf import hosted

ROOT = Path(__file__).resolve().parents[2]
HARNESS = Path(__file__).with_name("devstack.sh")
STACK = ("stack pre-install", "stack install", "stack post-config", "stack extra",
         "stack test-config")
WEIGHER = "splitimage_driver.nova.weigher.SplitImageWeigher"
#: What DevStack has written before the plugin's turn, as far as that matters.
CONFIGURED = {
    "nova/nova.conf": """\
[DEFAULT]
debug = True
compute_driver = libvirt.LibvirtDriver
[filter_scheduler]
enabled_filters = ComputeFilter,ImagePropertiesFilter

[service_user]
send_service_user_token = True
""",
    "glance/glance-api.conf": "[DEFAULT]\ndebug = True\n[paste_deploy]\nflavor = keystone\n",
    "glance/glance-image-import.conf":
        "[image_import_opts]\nimage_import_plugins = []\n[inject_metadata_properties]\ninject =\n",
    "tempest.conf": "[compute]\nbuild_timeout = 196\n",
}


class Host:
    """What DevStack would work on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.etc = path / "etc"
        for name, text in CONFIGURED.items():
            (self.etc / name).parent.mkdir(parents=True, exist_ok=True)
            (self.etc / name).write_text(text)
        sample = (ROOT / "etc/splitimage/glance-api-paste.ini.sample").read_text()
        self.paste.write_text(
            "[filter:context]\npaste.filter_factory = glance.api.middleware.context:x\n"
            + sample.partition("[composite:api]")[1]
            + sample.partition("[composite:api]")[2].replace(" splitimage", "")
            + "caching = cors unauthenticated-context cache rootapp\n")
        (path / "stack/nova/nova/virt").mkdir(parents=True)
        (path / "stack/splitimage-driver").symlink_to(ROOT)
        venv = path / "stack/data/venv"
        subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", venv], check=True)
        # It would need Glance's database.
        manage = venv / "bin/glance-manage"
        manage.write_text(f'#!/bin/sh\necho "$@" >>{path}/managed\n')
        manage.chmod(0o755)

    @property
    def paste(self) -> Path:
        return self.etc / "glance/glance-api-paste.ini"

    @property
    def shim(self) -> Path:
        return self.path / "stack/nova/nova/virt/splitimage"

    def run(self, *calls: str, said: Mapping[str, str] | None = None,
            prefix: tuple[str | Path, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, HARNESS, self.path, *calls], text=True, capture_output=True, check=False,
            env={"PATH": os.environ["PATH"], "TEST_PYTHON": sys.executable,
                 **(said or {})})

    def does(self, *calls: str, said: Mapping[str, str] | None = None,
             prefix: tuple[str | Path, ...] = ()) -> None:
        done = self.run(*calls, said=said, prefix=prefix)
        assert done.returncode == 0, done.stdout + done.stderr

    def read(self, name: str) -> dict[str, dict[str, str]]:
        parser = configparser.ConfigParser(interpolation=None, default_section="\0")
        parser.read_string((self.etc / name).read_text())
        return {section: dict(parser[section]) for section in parser.sections()}

    def configuration(self) -> dict[str, dict[str, dict[str, str]]]:
        """Of all files, without sections that are empty."""
        names = [str(path.relative_to(self.etc)) for path in self.etc.rglob("*")
                 if path.is_file() and path.suffix in (".conf", ".ini")]
        return {name: {section: said for section, said in self.read(name).items() if said}
                for name in names}

    def lines(self, name: str) -> list[str]:
        path = self.path / name
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def loaded(path: Path, *opts: tuple[str | None, cfg.Opt]) -> cfg.ConfigOpts:
    """The file as oslo.config reads it."""
    conf = cfg.ConfigOpts()
    for group, opt in opts:
        conf.register_opts([opt], group=group)
    conf([], project="x", default_config_files=[str(path)])
    return conf


def defines(module: str, name: str) -> bool:
    """The module, which may need what is not installed here, has the name."""
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None, module
    tree = ast.parse(Path(spec.origin).read_text())
    return any(getattr(node, "name", None) == name for node in tree.body)


# -- a whole run -----------------------------------------------------------------------

def test_nova_is_told_of_the_driver(host: Host) -> None:
    host.does(*STACK)
    for name in ("nova.conf", "nova-cpu.conf"):
        conf = loaded(host.etc / "nova" / name, (None, cfg.StrOpt("compute_driver")),
                      ("filter_scheduler", cfg.ListOpt("weight_classes")),
                      (hosted.GROUP, hosted.OPTS[0]))
        assert conf.compute_driver == "splitimage.SplitImageDriver"
        assert conf.filter_scheduler.weight_classes == [
            "nova.scheduler.weights.all_weighers", WEIGHER]
        assert conf.splitimage.config_file == str(host.etc / "splitimage/splitimage.conf")
    assert host.read("nova/nova.conf")["service_user"] == {"send_service_user_token": "True"}


def test_the_shim_is_where_nova_looks_for_drivers(host: Host) -> None:
    host.does(*STACK)
    assert host.shim.is_symlink()
    assert filecmp.cmp(host.shim / "__init__.py", ROOT / "nova/virt/splitimage/__init__.py")
    tree = ast.parse((host.shim / "__init__.py").read_text())
    imported = {(node.module, alias.name) for node in tree.body
                if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert ("splitimage_driver.nova.driver", "SplitImageDriver") in imported


@pytest.mark.skipif(not (ROOT / "splitimage_driver/nova/weigher.py").exists(),
                    reason="there is no weigher")
def test_the_weigher_that_is_named_is_there() -> None:
    module, _, name = WEIGHER.rpartition(".")
    assert defines(module, name)


def test_glance_is_told_of_filter_and_plugin(host: Host) -> None:
    host.does(*STACK)
    pipelines = host.read("glance/glance-api-paste.ini")["composite:api"]
    for flavor in ("keystone", "keystone+caching", "keystone+cachemanagement"):
        words = pipelines[flavor].split()
        assert words.count("splitimage") == 1
        assert words[words.index("context") + 1] == "splitimage"
    assert "splitimage" not in pipelines["caching"], "there are no users in it"
    section = host.read("glance/glance-api-paste.ini")["filter:splitimage"]
    assert section["config_file"] == str(host.etc / "splitimage/splitimage.conf")
    distribution, _, name = section["use"].removeprefix("egg:").partition("#")
    factories = importlib.metadata.distribution(distribution).entry_points.select(
        group="paste.filter_factory", name=name)
    assert [callable(found.load()) for found in factories] == [True]
    conf = loaded(host.etc / "glance/glance-image-import.conf",
                  ("image_import_opts", cfg.ListOpt("image_import_plugins", bounds=True)),
                  (hosted.GROUP, hosted.OPTS[0]))
    assert conf.image_import_opts.image_import_plugins == ["splitimage_split"]
    assert hosted.files(conf) == [str(host.etc / "splitimage/splitimage.conf")]
    (plugin,) = importlib.metadata.distribution(distribution).entry_points.select(
        group="glance.image_import.plugins", name="splitimage_split")
    assert defines(plugin.module, plugin.attr)


def test_the_projects_own_file_can_be_read(host: Host) -> None:
    host.does(*STACK, said={"SPLITIMAGE_ACCELERATOR": "tcg", "SPLITIMAGE_MAX_PARALLEL": "3"})
    conf = configuration.load(files=[str(host.etc / "splitimage/splitimage.conf")])
    assert (conf.assembly.accelerator, conf.assembly.max_parallel) == ("tcg", 3)
    assert (conf.split.directory, conf.split.max_parallel) == (
        str(host.path / "stack/data/splitimage/split"), 3)
    assert stat.S_IMODE((host.path / "stack/data/splitimage").stat().st_mode) == 0o700


def test_the_rest_of_a_run(host: Host) -> None:
    host.does(*STACK)
    packages = host.lines("packages")
    assert {"libguestfs-tools", "python3-guestfs", "squashfs-tools-ng", "qemu-utils"} <= {*packages}
    assert not {"git", "python3-venv", "mariadb-server-core"} & {*packages}
    assert host.lines("developed") == [str(host.path / "stack/splitimage-driver")]
    (managed,) = host.lines("managed")
    assert managed.split()[:2] == ["--config-file", str(host.etc / "glance/glance-api.conf")]
    assert managed.split()[2] == "db_load_metadefs"
    assert list(Path(managed.split()[3]).glob("*.json"))
    assert host.read("tempest.conf")["compute"]["build_timeout"] == "900"
    assert "GLANCE_LIMIT_IMAGE_COUNT_TOTAL=2000" in host.lines("limits")


def test_a_second_run_changes_nothing(host: Host) -> None:
    host.does(*STACK)
    first = host.configuration()
    host.does(*STACK)
    assert host.configuration() == first
    host.does("stack post-config", "stack post-config", "stack test-config")
    assert host.configuration() == first


@pytest.mark.parametrize("said", [{}, {"SPLITIMAGE_GLANCE_PROTECT": "True"}])
def test_clean_takes_everything_out(host: Host, said: dict[str, str]) -> None:
    before = host.configuration()
    host.does(*STACK, "unstack", said=said)
    host.does("clean")
    after = host.configuration()
    assert after.pop("nova/nova-cpu.conf")["DEFAULT"]["compute_driver"] == "libvirt.LibvirtDriver"
    before["tempest.conf"]["compute"]["build_timeout"] = "900"
    assert after == before
    assert not (host.etc / "splitimage").exists()
    assert not (host.path / "stack/data/splitimage").exists()
    assert not host.shim.is_symlink()
    assert not list((host.etc / "glance/policy.d").glob("*"))
    host.does("clean")
    assert host.configuration().keys() >= before.keys(), "a second one finds nothing to do"


def test_clean_without_a_run_before_it(host: Host) -> None:
    shutil.rmtree(host.etc)
    host.does("unstack", "clean")


# -- together with others ----------------------------------------------------------------

def test_what_others_have_configured_stays(host: Host) -> None:
    imports = host.etc / "glance/glance-image-import.conf"
    imports.write_text("[image_import_opts]\n"
                       "image_import_plugins = [image_decompression, image_conversion]\n")
    nova = host.etc / "nova/nova.conf"
    nova.write_text(nova.read_text().replace(
        "[filter_scheduler]", "[filter_scheduler]\nweight_classes = a.Weigher,b.Weigher"))
    before = host.configuration()
    host.does(*STACK)
    assert host.read("glance/glance-image-import.conf")["image_import_opts"] == {
        "image_import_plugins": "[image_decompression,image_conversion,splitimage_split]"}
    assert (host.read("nova/nova.conf")["filter_scheduler"]["weight_classes"]
            == f"a.Weigher,b.Weigher,{WEIGHER}")
    host.does("clean")
    assert host.read("nova/nova.conf") == before["nova/nova.conf"]
    assert host.read("glance/glance-image-import.conf")["image_import_opts"] == {
        "image_import_plugins": "[image_decompression,image_conversion]"}


def test_what_is_switched_off_goes(host: Host) -> None:
    before = host.configuration()
    host.does(*STACK, said={"SPLITIMAGE_GLANCE_PROTECT": "True"})
    protections = host.read("glance/glance-api.conf")["DEFAULT"]
    assert protections["property_protection_rule_format"] == "roles"
    assert filecmp.cmp(protections["property_protection_file"],
                       ROOT / "etc/splitimage/glance-property-protections.conf")
    host.does("stack post-config", said={
        "SPLITIMAGE_GLANCE_FILTER": "False", "SPLITIMAGE_GLANCE_SPLIT": "no",
        "SPLITIMAGE_WEIGHER": "0"})
    after = host.configuration()
    for name in ("glance/glance-api-paste.ini", "glance/glance-api.conf"):
        assert after[name] == before[name]
    assert after["glance/glance-image-import.conf"]["image_import_opts"] == {
        "image_import_plugins": "[]"}
    assert after["nova/nova.conf"]["filter_scheduler"] == before["nova/nova.conf"][
        "filter_scheduler"]


def test_a_compute_host_needs_no_glance(host: Host) -> None:
    shutil.rmtree(host.etc / "glance")
    host.does(*STACK, said={"ENABLED_SERVICES": "n-cpu"})
    assert host.read("nova/nova-cpu.conf")["DEFAULT"]["compute_driver"].startswith("splitimage.")
    assert "weight_classes" not in host.read("nova/nova.conf")["filter_scheduler"]
    assert not (host.etc / "glance").exists()
    assert host.lines("managed") == []
    host.does("clean", said={"ENABLED_SERVICES": "n-cpu"})


def test_a_controller_needs_no_hypervisor(host: Host) -> None:
    host.does(*STACK, said={"ENABLED_SERVICES": "g-api n-api n-sch", "VIRT_DRIVER": "fake"})
    assert not host.shim.is_symlink()
    assert host.read("nova/nova.conf")["DEFAULT"]["compute_driver"] == "libvirt.LibvirtDriver"
    assert WEIGHER in host.read("nova/nova.conf")["filter_scheduler"]["weight_classes"]


@pytest.mark.parametrize(("said", "words"), [
    ({"VIRT_DRIVER": "fake"}, "VIRT_DRIVER=fake"),
    ({"LIBVIRT_TYPE": "lxc"}, "LIBVIRT_TYPE=lxc"),
    ({"NOVA_USE_SERVICE_TOKEN": "False"}, "NOVA_USE_SERVICE_TOKEN"),
    ({"SPLITIMAGE_ACCELERATOR": "xen"}, "SPLITIMAGE_ACCELERATOR"),
    ({"os_VENDOR": "Fedora"}, "Debian and Ubuntu")])
def test_what_cannot_be_is_told_before_anything_is_installed(
        host: Host, said: dict[str, str], words: str) -> None:
    done = host.run(*STACK, said=said)
    assert done.returncode == 1
    assert "die: " in done.stderr and words in done.stderr
    assert host.lines("packages") == []


def test_a_directory_in_the_links_place_is_not_touched(host: Host) -> None:
    host.shim.mkdir()
    (host.shim / "theirs").touch()
    done = host.run(*STACK)
    assert done.returncode == 1 and "not of this plugin" in done.stderr
    host.does("clean")
    assert (host.shim / "theirs").exists()


# -- libguestfs ---------------------------------------------------------------------------

def test_an_environment_of_its_own_sees_guestfs(host: Host) -> None:
    python = host.path / "stack/data/venv/bin/python3"

    def sees() -> bool:
        return subprocess.run([python, "-c", "import guestfs; guestfs.GuestFS"],
                              capture_output=True, check=False).returncode == 0
    assert not sees()
    host.does("stack install", "stack install")
    assert sees()
    host.does("clean")
    assert not sees()
    assert subprocess.run(["/usr/bin/python3", "-c", "import guestfs"], check=False).returncode == 0


def test_one_that_sees_the_distributions_packages_gets_no_links(host: Host) -> None:
    venv = host.path / "stack/data/venv"
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", "--clear",
                    "--system-site-packages", venv], check=True)
    host.does("stack install")
    assert not list(venv.glob("lib*/python3*/site-packages/*guestfs*"))


@pytest.fixture
def kernels(host: Host) -> Iterator[tuple[str | Path, ...]]:
    """What begins the command of a user on a host with three kernels, of which
    the newest has no modules, and of which nobody but root reads any."""
    sudo = Path(shutil.copy("/usr/bin/env", host.path / "sudo-env"))
    sudo.chmod(0o4755)
    if os.statvfs(sudo).f_flag & os.ST_NOSUID:
        pytest.skip("no program there gets rights of its owner's")
    boot, modules = host.path / "boot", host.path / "modules"
    boot.mkdir()
    for version in ("6.1.0-9-amd64", "6.1.0-10-amd64", "6.2.0-1-amd64"):
        (boot / f"vmlinuz-{version}").write_text(version)
        (boot / f"vmlinuz-{version}").chmod(0o600)
        if not version.startswith("6.2"):
            (modules / version).mkdir(parents=True)
            (modules / version / "modules.dep").touch()
    nobody = 65534
    for place in (host.path, *host.path.parents):
        if place.owner() == "root" and place.is_relative_to(tempfile.gettempdir()):
            place.chmod(place.stat().st_mode | 0o011)
    for found in (host.path, *host.path.rglob("*")):
        if not found.is_relative_to(boot) and found != sudo:
            os.chown(found, nobody, nobody, follow_symlinks=False)
    inside = ('mount --bind "$0" /boot && mount --bind "$1" /lib/modules && shift 1 && '
              f'exec setpriv --reuid {nobody} --regid {nobody} --clear-groups "$@"')
    yield ("unshare", "--mount", "sh", "-c", inside, boot, modules)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes what a host looks like")
def test_a_kernel_for_root_only_is_copied_and_stays_as_it_is(
        host: Host, kernels: tuple[str | Path, ...]) -> None:
    host.does("stack post-config", "stack post-config", prefix=kernels)
    (copy,) = (host.path / "stack/data/splitimage/kernel").iterdir()
    assert copy.read_text() == "6.1.0-10-amd64"
    assert (copy.owner(), stat.S_IMODE(copy.stat().st_mode)) == ("nobody", 0o400)
    for kernel in (host.path / "boot").iterdir():
        assert (kernel.owner(), stat.S_IMODE(kernel.stat().st_mode)) == ("root", 0o600)
    told = f"SUPERMIN_KERNEL={copy} SUPERMIN_KERNEL_VERSION=6.1.0-10-amd64 " \
           "SUPERMIN_MODULES=/lib/modules/6.1.0-10-amd64"
    assert host.lines("environments") == [f"g-api {told}", f"n-cpu {told}"]
    host.does("clean", prefix=kernels)
    assert not copy.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes what a host looks like")
def test_a_kernel_that_can_be_read_is_left_to_libguestfs(
        host: Host, kernels: tuple[str | Path, ...]) -> None:
    (host.path / "boot/vmlinuz-6.1.0-10-amd64").chmod(0o644)
    host.does("stack post-config", prefix=kernels)
    assert not (host.path / "stack/data/splitimage/kernel").exists()
    assert host.lines("environments") == []

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver import exceptions
from splitimage_driver.capture.packagedb.base import expected_base, groups
from splitimage_driver.capture.packagedb.database import Package, PackageDB


def package(name: str, *depends: str, **fields: object) -> Package:
    return Package(**{"name": name, "architecture": "amd64", "version": "1", "manual": False,
                      "depends": tuple((one,) for one in depends),
                      **fields})  # type: ignore[arg-type]


def database(*packages: Package) -> PackageDB:
    return PackageDB(packages, format="dpkg", architecture="amd64")


def wants(*names: str) -> tuple[tuple[str, ...], ...]:
    return tuple((name,) for name in names)


def test_the_base_is_what_the_system_needs_without_the_software() -> None:
    db = database(
        package("libc6"), package("bash", "libc6", essential=True),
        package("init", "udev", priority="required"), package("udev", priority="optional"),
        package("linux-image-6.1.0", "kmod"), package("kmod"),
        package("odd-loader", files=(b"boot/loader.bin",)),
        package("drivers", files=(b"usr/lib/modules/6.1.0/x.ko",)),
        package("grub-pc", "grub-common"), package("grub-common"),
        package("vim", "vim-common", manual=True), package("vim-common"),
        package("apache2", "libapr", manual=True), package("libapr", "libc6"),
        package("orphan"), package("files", files=(b"boot",)))
    base = expected_base(db, {"apache": ("apache2",)})
    assert set(db.packages) - base == {"apache2", "libapr", "orphan", "files"}


def test_named_packages_are_in_the_base_only_where_the_system_needs_them() -> None:
    db = database(package("bash", "perl", essential=True), package("perl", manual=True),
                  package("apache2", manual=True, priority="important"))
    assert expected_base(db, {"perl": ("perl",), "web": ("apache2",)}) == {"bash", "perl"}


def test_additions_to_named_software_stay_out_of_the_base() -> None:
    db = database(package("apache2", "bin"), package("bin"),
                  package("apache2-extra", "apache2", "libextra", manual=True),
                  package("libextra"), package("vim", manual=True))
    assert expected_base(db, {"apache": ("apache2",)}) == {"vim"}


def test_what_the_system_recommends_is_the_systems() -> None:
    db = database(
        package("init", essential=True, recommends=wants("apparmor", "libapr", "tool")),
        package("apparmor", "python", recommends=wants("apparmor-utils")), package("python"),
        package("apparmor-utils"), package("tool", "apache2"),
        package("apache2", "libapr", manual=True), package("libapr"))
    assert expected_base(db, {"apache": ("apache2",)}) == {
        "init", "apparmor", "apparmor-utils", "python"}


def test_shared_dependencies_have_all_their_needers() -> None:
    db = database(package("base"), package("apache2", "lib", "base"), package("mysql", "lib"),
                  package("php", "lib2"), package("lib", "lib2"), package("lib2", "base"),
                  package("unasked"))
    found = groups(db, {"base"}, {"a": ("apache2",), "m": ("mysql",), "p": ("php",)})
    assert found.by_needers() == {
        frozenset(): ("unasked",),
        frozenset("a"): ("apache2",), frozenset("m"): ("mysql",), frozenset("p"): ("php",),
        frozenset("am"): ("lib",), frozenset("amp"): ("lib2",)}
    assert found.requires == {"a": (), "m": (), "p": ()}
    assert found.rest == ("unasked",)


def test_software_that_needs_other_software_requires_it() -> None:
    db = database(package("apache2", "lib"), package("lib"), package("php", "apache2", "lib"),
                  package("app", "php", "own"), package("own"))
    found = groups(db, (), {"apache": ("apache2",), "php": ("php",), "app": ("app",)})
    assert found.requires == {"apache": (), "php": ("apache",), "app": ("apache", "php")}
    assert found.packages == {
        "apache2": {"apache"}, "lib": {"apache"}, "php": {"php"}, "app": {"app"},
        "own": {"app"}}


def test_needing_some_of_the_named_packages_is_not_requiring() -> None:
    db = database(package("server"), package("client"), package("app", "client"))
    found = groups(db, (), {"db": ("server", "client"), "app": ("app",)})
    assert found.requires == {"app": (), "db": ()}
    assert found.packages["client"] == {"app", "db"}


def test_a_circle_goes_to_the_first_name() -> None:
    db = database(package("x", "y"), package("y", "x"))
    found = groups(db, (), {"b": ("x",), "a": ("y",)})
    assert found.requires == {"a": (), "b": ("a",)}
    assert found.packages == {"x": {"a"}, "y": {"a"}}


def test_software_within_the_base_is_nobodys_requirement() -> None:
    db = database(package("perl"), package("apache2", "perl"))
    found = groups(db, {"perl"}, {"perl": ("perl",), "apache": ("apache2",)})
    assert found.requires == {"perl": (), "apache": ()}
    assert found.packages == {"apache2": {"apache"}}


def test_recommended_packages_follow_in_rounds_but_bring_no_software() -> None:
    db = database(
        package("apache2", recommends=wants("cert", "php", "helper")),
        package("cert", "openssl", recommends=wants("more")), package("openssl"),
        package("more"), package("helper", "php"),
        package("php", recommends=wants("cert-php")), package("cert-php", "openssl"))
    found = groups(db, (), {"apache": ("apache2",), "php": ("php",)})
    assert found.packages == {
        "apache2": {"apache"}, "cert": {"apache"}, "more": {"apache"},
        "openssl": {"apache", "php"}, "cert-php": {"php"}, "php": {"php"},
        "helper": frozenset()}


def test_a_recommendation_may_use_software_that_is_required_anyway() -> None:
    db = database(package("apache2"), package("php", "apache2", recommends=wants("module")),
                  package("module", "apache2"))
    found = groups(db, (), {"apache": ("apache2",), "php": ("php",)})
    assert found.packages["module"] == {"php"}


def test_what_is_not_installed_is_refused() -> None:
    with pytest.raises(exceptions.PackageNotFound, match="nowhere"):
        groups(database(package("a")), (), {"x": ("nowhere",)})
    with pytest.raises(exceptions.PackageNotFound, match="nowhere"):
        expected_base(database(package("a")), {"x": ("nowhere",)})


_NAMES = [f"p{number}" for number in range(9)]
_links = st.lists(st.sampled_from(_NAMES), max_size=3, unique=True)


@st.composite
def machines(draw: st.DrawFn) -> tuple[PackageDB, dict[str, tuple[str, ...]]]:
    db = database(*(package(name, *draw(_links), recommends=wants(*draw(_links)),
                            manual=draw(st.booleans()), essential=number == 0)
                    for number, name in enumerate(_NAMES)))
    named = st.lists(st.sampled_from(_NAMES), min_size=1, max_size=2, unique=True).map(tuple)
    return db, draw(st.dictionaries(st.sampled_from("abc"), named, min_size=1))


@given(machines())
def test_every_choice_of_software_has_all_it_depends_on(
        machine: tuple[PackageDB, dict[str, tuple[str, ...]]]) -> None:
    db, software = machine
    base = expected_base(db, software)
    assert base == db.closure(base)
    found = groups(db, base, software)
    assert set(found.packages) == set(db.packages) - base
    for count in range(len(software) + 1):
        for choice in combinations(sorted(software), count):
            chosen = {*choice, *(other for one in choice for other in found.requires[one])}
            there = base | {key for key, names in found.packages.items() if names & chosen}
            assert db.closure(there) == there
            assert {name for one in choice for name in software[one]} <= there
            # no software arrives by mere recommendation
            strangers = {name for one in set(software) - chosen for name in software[one]}
            asked = (name for one in chosen for name in software[one])
            assert strangers & there <= base | db.closure(asked)


@given(machines())
def test_requirements_have_no_circle_and_are_complete(
        machine: tuple[PackageDB, dict[str, tuple[str, ...]]]) -> None:
    db, software = machine
    requires = groups(db, expected_base(db, software), software).requires
    for one, others in requires.items():
        assert one not in others
        for other in others:
            assert one not in requires[other]
            assert set(requires[other]) <= set(others)


@given(machines())
def test_the_order_of_the_words_does_not_matter(
        machine: tuple[PackageDB, dict[str, tuple[str, ...]]]) -> None:
    db, software = machine
    turned = {name: tuple(reversed(software[name])) for name in reversed(sorted(software))}
    other = database(*reversed(db.packages.values()))
    base = expected_base(db, software)
    assert expected_base(other, turned) == base
    one, two = groups(db, base, software), groups(other, base, turned)
    assert one.requires == two.requires and one.by_needers() == two.by_needers()

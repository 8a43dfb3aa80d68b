from __future__ import annotations

import pytest

from splitimage_driver import exceptions
from splitimage_driver.capture.packagedb.database import Package, PackageDB, leaves


def package(name: str, *depends: str, **fields: object) -> Package:
    return Package(**{"name": name, "architecture": "amd64", "version": "1",
                      "depends": tuple(tuple(one.split("|")) for one in depends),
                      **fields})  # type: ignore[arg-type]


def database(*packages: Package, **fields: object) -> PackageDB:
    return PackageDB(packages, format="dpkg", architecture="amd64",
                     **fields)  # type: ignore[arg-type]


def test_keys_tell_architectures_and_versions_apart() -> None:
    db = database(package("a"), package("libc6"), package("libc6", architecture="i386"),
                  package("kernel", version="5-1"), package("kernel", version="6-1"))
    assert set(db.packages) == {"a", "libc6:amd64", "libc6:i386",
                                "kernel-5-1:amd64", "kernel-6-1:amd64"}
    assert db.find("libc6") == ("libc6:amd64", "libc6:i386")
    assert db.find("libc6:i386") == ("libc6:i386",)
    assert db.find("a:amd64") == ("a",)
    assert db.find("kernel") == ("kernel-5-1:amd64", "kernel-6-1:amd64")


def test_the_same_package_twice_is_refused() -> None:
    with pytest.raises(exceptions.InvalidInput, match="a-1:amd64 is there twice"):
        database(package("a"), package("a"))


@pytest.mark.parametrize("name", ["b", "a:i386", "a:", ":amd64", ""])
def test_what_is_not_installed_is_an_error_that_names_it(name: str) -> None:
    db = database(package("a"))
    with pytest.raises(exceptions.PackageNotFound) as caught:
        db.closure([name])
    assert caught.value.fields["kind"] == "package"
    assert caught.value.fields["name"] == name
    assert "dpkg" in str(caught.value) and "inspect" in caught.value.advice


def test_closure_takes_the_first_alternative_with_that_very_name() -> None:
    db = database(package("a", "virtual|c|b"), package("b"), package("c", "d"), package("d", "a"),
                  package("p", provides=("virtual",)))
    assert db.closure(["a"]) == {"a", "c", "d"}
    assert db.requirers("c") == ("a",)
    assert db.requirers("p") == ()


def test_of_providers_the_systems_own_comes_first() -> None:
    gawk, mawk = package("gawk", provides=("awk",), manual=False), package(
        "mawk", provides=("awk",), priority="required", manual=False)
    assert database(package("a", "awk"), gawk, mawk).closure(["a"]) == {"a", "mawk"}
    assert database(package("a", "awk"), gawk).closure(["a"]) == {"a", "gawk"}
    busybox = package("busybox", provides=("awk",), essential=True, architecture="i386")
    db = database(package("a", "awk"), gawk, busybox)
    assert db.closure(["a"]) == {"a", "gawk"}, "an architecture of its own goes before all"


def test_a_dependency_stays_in_its_architecture() -> None:
    db = database(package("lib"), package("lib", architecture="i386"),
                  package("old", "lib", architecture="i386"), package("new", "lib"),
                  package("data", "lib", architecture="all"))
    assert db.closure(["old"]) == {"old", "lib:i386"}
    assert db.closure(["new", "data"]) == {"new", "data", "lib:amd64"}


def test_recommendations_only_when_asked_for() -> None:
    db = database(package("a", recommends=(("b",), ("nowhere",))), package("b", "c"),
                  package("c", recommends=(("a",),)))
    assert db.closure(["a"]) == {"a"}
    assert db.closure(["a"], recommends=True) == {"a", "b", "c"}


def test_unmet_dependencies_and_circles() -> None:
    db = database(package("a", "b", "nowhere"), package("b", "a"))
    assert db.closure(["b"]) == {"a", "b"}
    assert db.dependents(["a"]) == {"a", "b"}


def test_dependencies_on_paths() -> None:
    db = database(package("a", "/bin/tool", "/nowhere"), package("t", files=(b"usr/bin/tool",)),
                  place=lambda path: path.strip(b"/").replace(b"bin/", b"usr/bin/", 1))
    assert db.closure(["a"]) == {"a", "t"}


def test_owners_and_size() -> None:
    db = database(package("a", files=(b"etc", b"etc/a"), installed_size=3),
                  package("b", files=(b"etc",), installed_size=4))
    assert db.owners(b"etc") == ("a", "b")
    assert db.owners(b"etc/a") == ("a",)
    assert db.owners(b"etc/b") == ()
    assert db.size(["a", "b"]) == 7


def test_leaves_are_what_nothing_else_wants() -> None:
    found = leaves([package("a", "b"), package("b", recommends=(("c",),)), package("c"),
                    package("x", "y"), package("y", "x")], "rpm")
    assert [one.name for one in found if one.manual] == ["a"]


def test_too_many_packages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitimage_driver.capture.packagedb.database.MAX_PACKAGES", 3)
    with pytest.raises(exceptions.InvalidInput, match="more than 3 packages"):
        database(*(package(f"p{number}") for number in range(4)))
    monkeypatch.setattr("splitimage_driver.capture.packagedb.database.MAX_PATHS", 3)
    with pytest.raises(exceptions.InvalidInput, match="or 3 paths"):
        database(package("a", files=(b"1", b"2", b"3", b"4")))

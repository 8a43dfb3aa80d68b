"""The samples for Glance know every property that images of this project have."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from splitimage_driver.model import properties
from splitimage_driver.model.part import FILESET
from splitimage_driver.store.glance import access, holdings
from tests.imagerecords import Records
from tests.unit.store.glance.fake import FakeGlance

ETC = Path(__file__).resolve().parents[2] / "etc/splitimage"
METADEF = ETC / "metadefs/splitimage.json"
PROTECTIONS = ETC / "glance-property-protections.conf"
#: Written by whoever uploads a gold disk, and by its import.
IMPORTED = {"splitimage_split": "apache=apache2,apache2-bin mysql=mariadb-server",
            "splitimage_split_1": "php=php8.2", "splitimage_error": "no operating system found"}


@pytest.fixture
def written() -> dict[str, set[str]]:
    """Every property that is ever written, with values of it."""
    glance = FakeGlance()
    alpha = Records(glance.user("alpha"))
    lamp = alpha.begun()
    one, lone = alpha.part(holder=lamp["id"]), alpha.part("own", kind=FILESET)
    lamp = alpha.finished(lamp, apache=one)
    alpha.completed(lamp, *(f"part-with-a-long-name-{number:039d}" for number in range(12)))
    access.touch(alpha.images, lone["id"])
    alpha.part("unused")
    access.collect(alpha.images, "alpha", grace=60)
    alpha.images.deactivate(lamp["id"])
    access.reconcile(alpha.images, lamp["id"])
    found: dict[str, set[str]] = {name: {value} for name, value in IMPORTED.items()}
    for image in glance.images.values():
        for name, value in image.items():
            if name.startswith(properties.PREFIX):
                found.setdefault(name, set()).add(value)
    assert found.keys() >= {holdings.FOR, holdings.TOUCHED, holdings.UNREFERENCED,
                            holdings.DEACTIVATED, "splitimage_parts_1", "splitimage_part_apache"}
    return found


def test_the_namespace_describes_all_that_is_written(written: dict[str, set[str]]) -> None:
    described: dict[str, dict[str, Any]] = json.loads(METADEF.read_text())["properties"]
    for name, values in written.items():
        if name.startswith("splitimage_part_"):
            name = "splitimage_restore"  # of the same form, and metadefs know no wildcard
        schema = described[re.sub(r"_[0-9]+\Z", "", name)]
        assert set(schema) >= {"title", "description", "type"}
        for value in values:
            assert len(value) <= schema.get("maxLength", properties.MAX_VALUE)
            assert re.search(schema.get("pattern", ""), value), (name, value)
            assert value in schema.get("enum", [value]), (name, value)
    told = re.findall(r"``(splitimage_[a-z]+)``", properties.__doc__ or "")
    assert set(described) >= set(told) - {"splitimage_part"}


def rule(name: str) -> configparser.SectionProxy:
    """As Glance finds it: the first that matches."""
    rules = configparser.ConfigParser()
    rules.read(PROTECTIONS)
    return next(rules[section] for section in rules.sections() if re.search(section, name))


def test_members_may_write_all_that_is_written(written: dict[str, set[str]]) -> None:
    for name in written:
        found = rule(name)
        assert (found["create"], found["update"], found["delete"]) == ("admin,member",) * 3, name
        assert found["read"] == "@"


@pytest.mark.parametrize("name", [
    "splitimage_part_../x", "splitimage_part_a\nb", "splitimage_part_a\n", "splitimage_part_",
    "splitimage_part_" + "a" * 64, "splitimage_role\n", "splitimage_roles", "splitimage_Role",
    "splitimage_recipe_1", "splitimage_split_100", "splitimage_", "x-splitimage_"])
def test_nobody_writes_names_that_are_not_used(name: str) -> None:
    found = rule(name)
    if name.startswith(properties.PREFIX):
        assert (found["create"], found["update"], found["delete"]) == ("!", "!", "@")
    else:
        assert found.name == ".*"


def test_what_is_no_matter_of_this_project_is_as_before() -> None:
    assert dict(rule("hw_disk_bus")) == dict.fromkeys(("create", "read", "update", "delete"), "@")


def test_the_policy_sample_can_be_read() -> None:
    found = yaml.safe_load((ETC / "glance-policy.yaml").read_text())
    assert set(found) == {"publicize_image", "communitize_image", "add_member"}
    assert all("'completed':%(splitimage_role)s" in check for check in found.values())

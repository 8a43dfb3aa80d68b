"""The samples in etc/splitimage, in a real Glance."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.store.glance import access
from tests.cloud import accounts
from tests.functional import smallgold
from tests.functional.command import ROOT

if TYPE_CHECKING:
    from tests.functional.cloud import TestCloud
    from tests.functional.glanceusers import Stores

pytest_plugins = ("tests.functional.cloud", "tests.functional.glanceusers")
pytestmark = [pytest.mark.accept, pytest.mark.must_show("glance", 2)]

ETC = ROOT / "etc/splitimage"
NAMESPACE = "OS::SplitImage"
#: A role that may upload images, and nothing else.
ROBOT = "uploader"


def test_the_namespace_is_loaded_and_read_back(cloud: TestCloud) -> None:
    glance = cloud.service("glance")
    manage: list[str | Path] = [
        cloud.control.site.packages.program("glance-manage"), "--config-file",
        glance.directory / "glance-api.conf"]
    # Of a former run: loading leaves alone what is there.
    subprocess.run([*manage, "db", "unload_metadefs"], check=True, capture_output=True)
    assert cloud.alpha.image.get(f"/metadefs/namespaces/{NAMESPACE}").status_code == 404
    subprocess.run([*manage, "db_load_metadefs", ETC / "metadefs"], check=True,
                   capture_output=True)
    found = cloud.alpha.image.get(f"/metadefs/namespaces/{NAMESPACE}").json()
    assert (found["visibility"], found["protected"]) == ("public", True)
    assert [each["name"] for each in found["resource_type_associations"]] == ["OS::Glance::Image"]
    assert found["properties"]["splitimage_role"]["enum"] == list(properties.ROLES)
    assert len(found["properties"]) > 20


@pytest.fixture
def robot(cloud: TestCloud) -> Iterator[Any]:
    """A user of alpha's with a role of the operator's own."""
    identity: Any = cloud.admin.identity
    password = str(uuid.uuid4())
    role = identity.find_role(ROBOT) or identity.create_role(name=ROBOT)
    user = identity.create_user(name=f"robot-{uuid.uuid4()}", password=password,
                                domain_id="default")
    project = identity.find_project("alpha", domain_id="default")
    identity.assign_project_role_to_user(project, user, role)
    # Readers see images; whoever may upload will have to look at them, too.
    identity.assign_project_role_to_user(project, user, identity.find_role("reader"))
    from openstack.connection import Connection
    auth = accounts.connect(accounts.clouds_file(cloud.control.site), "alpha").config.auth
    yield Connection(region_name=cloud.alpha.config.get_region_name(), auth={
        "auth_url": auth["auth_url"], "username": user.name, "password": password,
        "project_name": "alpha", "user_domain_id": "default", "project_domain_id": "default"})
    identity.delete_user(user)


def allowing(tmp_path: Path, *rules: str) -> str:
    """A policy directory that lets the robot do these, too."""
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump({
        rule: f"rule:context_is_admin or (project_id:%(project_id)s and (role:member or "
              f"role:{ROBOT}))" for rule in rules}))
    return str(tmp_path)


def test_who_is_no_member_labels_nothing_where_properties_are_protected(
        cloud: TestCloud, robot: Any, stores: Stores, tmp_path: Path) -> None:
    policies = allowing(tmp_path, "add_image", "modify_image", "upload_image", "delete_image")
    labels = properties.common(properties.COMPLETED) | {"splitimage_recipe": "0" * 64}
    with cloud.configured({"glance-api.conf": {"oslo_policy": {"policy_dirs": policies}}}):
        bot = stores(robot)
        labelled = bot.image("labelled", labels, None)
        assert labelled["splitimage_role"] == "completed", "what it is about"
        with cloud.configured({"glance-api.conf": {
                "oslo_policy": {"policy_dirs": policies},
                "DEFAULT": {"property_protection_file": str(
                    ETC / "glance-property-protections.conf")}}}):
            for said in ({"splitimage_role": "part"}, {"splitimage_recipe": "0" * 64},
                         {"splitimage_part_x": "y"}, {"splitimage_for": str(uuid.uuid4())}):
                with pytest.raises(exceptions.NotPermitted, match="is reserved"):
                    bot.image("labelled", said, None)
            plain = bot.image("plain", {"hw_disk_bus": "virtio"}, None)
            for name in ("splitimage_role", "splitimage_manifest"):
                with pytest.raises(exceptions.NotPermitted, match="is reserved"):
                    bot.images.update(plain["id"], {name: "composite"})
            with pytest.raises(exceptions.NotPermitted, match="is reserved"):
                bot.images.update(labelled["id"], {"splitimage_recipe": "1" * 64})


def test_members_work_as_before_and_nobody_writes_other_names(
        cloud: TestCloud, stores: Stores) -> None:
    with cloud.configured({"glance-api.conf": {"DEFAULT": {
            "property_protection_file": str(ETC / "glance-property-protections.conf")}}}):
        alpha, admin = stores(cloud.alpha), stores(cloud.admin)
        lamp = alpha.begun()
        apache = alpha.part(holder=lamp["id"])
        lamp = alpha.finished(lamp, apache=apache)
        completed = alpha.completed(lamp, "apache")
        beta = str(cloud.beta.current_project_id)
        alpha.images.add_member(lamp["id"], beta)
        access.reconcile(alpha.images, lamp["id"])
        reader = stores(cloud.beta).images
        assert properties.links(reader.get(lamp["id"])).parts["apache"].image == apache["id"]
        assert reader.get(apache["id"])["splitimage_digest"] == apache["splitimage_digest"]
        admin.images.update(lamp["id"], {"visibility": "public"})
        access.reconcile(admin.images, lamp["id"])
        assert reader.get(properties.manifest(lamp))["visibility"] == "public"
        alpha.images.deactivate(lamp["id"])
        access.reconcile(alpha.images, lamp["id"])
        for images in (alpha.images, admin.images):
            for name in ("splitimage_part_../x", "splitimage_part_a\nb", "splitimage_roles",
                         "splitimage_part_" + "a" * 64):
                with pytest.raises(exceptions.NotPermitted, match="is reserved"):
                    images.update(completed["id"], {name: "x"})
        alpha.images.update(completed["id"], {"another": "property", "splitimage_used": "5.000"})
        alpha.images.delete(lamp["id"])
        access.reconcile(alpha.images, lamp["id"], last=lamp)
        removed = access.collect(alpha.images, alpha.images.project, grace=0)
        assert apache["id"] in {each.image for each in removed}


def test_the_command_line_works_where_properties_are_protected(
        cloud: TestCloud, stores: Stores, small_gold: smallgold.Gold, tmp_path: Path) -> None:
    name = f"small-{uuid.uuid4().hex[:8]}"
    command = cloud.splitimage("alpha", tmp_path / "store")
    alpha = stores(cloud.alpha)
    before = {each["id"] for each in alpha.images.list(hidden=None)}
    with cloud.configured({"glance-api.conf": {"DEFAULT": {
            "property_protection_file": str(ETC / "glance-property-protections.conf")}}}):
        captured = command("capture", name, *small_gold.arguments, "-f", "json").json
        alpha.made += [each["id"] for each in alpha.images.list(hidden=None)
                       if each["id"] not in before]
        plan = command("plan", name, "--part", "web", "-f", "json").json
        assert plan["candidate_id"] == captured["id"]
        assert command("composite", "delete", name).status == 0


def test_capturing_can_be_a_privilege(cloud: TestCloud, stores: Stores, tmp_path: Path) -> None:
    narrowed = tmp_path / "protections.conf"
    text = (ETC / "glance-property-protections.conf").read_text()
    head, section, rest = text.partition("[^splitimage_(restore|")
    for operation in ("create", "update"):
        rest = rest.replace(f"{operation} = admin,member", f"{operation} = admin,image_author", 1)
    narrowed.write_text(head + section + rest)
    identity: Any = cloud.admin.identity
    role = identity.find_role("image_author") or identity.create_role(name="image_author")
    project = identity.find_project("alpha", domain_id="default")
    user = identity.find_user("alpha", domain_id="default")
    identity.assign_project_role_to_user(project, user, role)
    try:
        # Fresh connections: a token knows the roles of its moment.
        file = accounts.clouds_file(cloud.control.site)
        alpha = stores(accounts.connect(file, "alpha"))
        beta = stores(accounts.connect(file, "beta"))
        with cloud.configured({"glance-api.conf": {"DEFAULT": {
                "property_protection_file": str(narrowed)}}}):
            lamp = alpha.composite("lamp", apache=alpha.part())
            with pytest.raises(exceptions.NotPermitted, match="is reserved"):
                beta.composite("lamp", apache=beta.part())
            completed = beta.completed(lamp, "apache")
            assert completed["status"] == "active"
            assert beta.part("files", kind="fileset")["status"] == "active"
    finally:
        identity.unassign_project_role_from_user(project, user, role)


def test_the_policy_keeps_completed_images_their_owners_own(
        cloud: TestCloud, stores: Stores) -> None:
    with cloud.configured({"glance-api.conf": {"oslo_policy": {
            "policy_file": str(ETC / "glance-policy.yaml")}}}):
        alpha, admin = stores(cloud.alpha), stores(cloud.admin)
        beta = str(cloud.beta.current_project_id)
        lamp = alpha.composite(apache=alpha.part())
        completed = alpha.completed(lamp, "apache")
        with pytest.raises(exceptions.NotPermitted):
            alpha.images.add_member(completed["id"], beta)
        for images, visibility in ((alpha.images, "community"), (admin.images, "public"),
                                   (alpha.images, "public"), (admin.images, "community")):
            with pytest.raises(exceptions.NotPermitted):
                images.update(completed["id"], {"visibility": visibility})
        # Composites and their parts are shared and made public as ever.
        alpha.images.add_member(lamp["id"], beta)
        access.reconcile(alpha.images, lamp["id"])
        for visibility in ("community", "public"):
            admin.images.update(lamp["id"], {"visibility": visibility})
            access.reconcile(admin.images, lamp["id"])
            restore = properties.links(lamp).restore.image
            assert alpha.images.get(restore)["visibility"] == visibility

"""Who may use the cloud: an administrator, two projects with a plain member
each, and the services. ``clouds.yaml`` tells the clients."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.cloud.service import REGION, Endpoint, Site
from tests.cloud.state import write_private

if TYPE_CHECKING:
    from openstack.connection import Connection

ADMIN = "admin"
#: Each with a user of the same name.
PROJECTS = ("alpha", "beta")
#: The project of the users that services are, and these.
SERVICES = "service"
SERVICE_USERS = ("glance", "nova", "placement")
#: In clouds.yaml.
CLOUD = "splitimage"


def clouds_file(site: Site) -> Path:
    return site.directory / "clouds.yaml"


def names() -> dict[str, str]:
    """Of a project (and its user) to the one in ``clouds.yaml``."""
    return {ADMIN: CLOUD} | {name: f"{CLOUD}-{name}" for name in PROJECTS}


def connect(file: Path, project: str) -> Connection:
    """openstacksdk's, for the project's user."""
    # Imported here: who only stops the cloud does without.
    from openstack.config import OpenStackConfig
    from openstack.connection import Connection

    region = OpenStackConfig(config_files=[str(file)], load_envvars=False,
                             load_yaml_config=True).get_one(names()[project])
    return Connection(config=region)


def ensure(site: Site, auth_url: str) -> None:
    """Whatever of it is missing or differs; once, until something differs."""
    text = _clouds(site, auth_url)
    write_private(clouds_file(site), text)
    passwords = [site.state.password(user) for user in SERVICE_USERS]
    key = hashlib.sha256(json.dumps([text, passwords, site.catalogue]).encode()).hexdigest()
    if site.state.is_done("accounts", key):
        return
    with connect(clouds_file(site), ADMIN) as cloud:
        identity: Any = cloud.identity  # typed as version 2 or 3
        service = _project(identity, SERVICES)
        for user in SERVICE_USERS:
            _user(identity, user, site.state.password(user), service, "admin", "service")
        for name in PROJECTS:
            _user(identity, name, site.state.password(name), _project(identity, name), "member")
        _catalogue(identity, site.catalogue)
    site.state.set_done("accounts", key)


def _clouds(site: Site, auth_url: str) -> str:
    def entry(user: str) -> dict[str, Any]:
        return {"region_name": REGION, "identity_api_version": 3, "auth": {
            "auth_url": auth_url, "username": user, "password": site.state.password(user),
            "project_name": user, "user_domain_id": "default", "project_domain_id": "default"}}

    return str(yaml.safe_dump({"clouds": {cloud: entry(user) for user, cloud in names().items()}}))


def _project(identity: Any, name: str) -> Any:
    return (identity.find_project(name, domain_id="default")
            or identity.create_project(name=name, domain_id="default"))


def _user(identity: Any, name: str, password: str, project: Any, *roles: str) -> None:
    user = identity.find_user(name, domain_id="default")
    if user is None:
        user = identity.create_user(name=name, password=password, domain_id="default",
                                    default_project_id=project.id)
    else:
        identity.update_user(user, password=password)
    for role in roles:
        identity.assign_project_role_to_user(
            project, user, identity.find_role(role, ignore_missing=False))


def _catalogue(identity: Any, endpoints: list[Endpoint]) -> None:
    # Who finds a service there that does not run any more waits for it.
    wanted = {endpoint.kind for endpoint in endpoints} | {"identity"}
    for service in list(identity.services()):
        if service.type not in wanted:
            identity.delete_service(service)  # its endpoints, too
    for endpoint in endpoints:
        service = (identity.find_service(endpoint.name)
                   or identity.create_service(name=endpoint.name, type=endpoint.kind))
        known = {e.interface: e for e in identity.endpoints(service_id=service.id)}
        for interface in ("public", "internal", "admin"):
            if interface not in known:
                identity.create_endpoint(service_id=service.id, interface=interface,
                                         url=endpoint.url, region_id=REGION)
            elif known[interface].url != endpoint.url:
                identity.update_endpoint(known[interface], url=endpoint.url)

"""Keystone, and the accounts in it."""

from __future__ import annotations

import getpass
import grp
import hashlib
import os
import time

from tests.cloud import accounts
from tests.cloud.service import REGION, Site, WsgiService, ask

NAME = "keystone"
_RECENT = 30.0


def url(site: Site) -> str:
    return f"{site.url(NAME)}/v3"


def middleware(site: Site, user: str) -> dict[str, object]:
    """``[keystone_authtoken]`` of a service, which is that user."""
    return {"www_authenticate_uri": url(site), **client(site, user)}


def client(site: Site, user: str) -> dict[str, object]:
    """How a service speaks to another, as that user."""
    return {"auth_url": url(site), "auth_type": "password",
            "username": user, "password": site.state.password(user),
            "project_name": accounts.SERVICES, "user_domain_id": "default",
            "project_domain_id": "default", "region_name": REGION}


def token(site: Site) -> str | None:
    """An administrator's; None: Keystone gives none."""
    answer = ask(f"{url(site)}/auth/tokens", body={"auth": {
        "identity": {"methods": ["password"], "password": {"user": {
            "name": accounts.ADMIN, "domain": {"id": "default"},
            "password": site.state.password(accounts.ADMIN)}}},
        "scope": {"project": {"name": accounts.ADMIN, "domain": {"id": "default"}}}}})
    return answer.headers["X-Subject-Token"] if answer and answer.status == 201 else None


def recent_token(site: Site) -> str | None:
    """One that may be some seconds old: for those who ask again and again."""
    if site.token is None or time.monotonic() - site.token[1] > _RECENT:
        found = token(site)
        site.token = (found, time.monotonic()) if found else None
    return site.token[0] if site.token else None


class Keystone(WsgiService):
    module = "keystone.wsgi.api"
    # Nova's clients read the catalogue once: what they ask must be in it.
    first = True

    def __init__(self, site: Site) -> None:
        super().__init__(site, NAME)

    def files(self) -> dict[str, str]:
        return {"keystone.conf": self.ini("keystone.conf", {
            "database": {"connection": self.site.database(self.name)},
            "fernet_tokens": {"key_repository": self.directory / "fernet-keys"},
            "credential": {"key_repository": self.directory / "credential-keys"}})}

    def variables(self) -> dict[str, str]:
        return {"OS_KEYSTONE_CONFIG_DIR": str(self.directory)}

    @property
    def prepare_key(self) -> str:
        password = self.site.state.password(accounts.ADMIN)
        return hashlib.sha256(f"{super().prepare_key} {url(self.site)} {password}".encode()
                              ).hexdigest()

    def prepare(self) -> None:
        for keys in ("fernet-keys", "credential-keys"):
            (self.directory / keys).mkdir(mode=0o700, exist_ok=True)
        self._manage("db_sync")
        owner = ("--keystone-user", getpass.getuser(),
                 "--keystone-group", grp.getgrgid(os.getgid()).gr_name)
        self._manage("fernet_setup", *owner)
        self._manage("credential_setup", *owner)
        self._manage("bootstrap", "--bootstrap-username", accounts.ADMIN,
                     "--bootstrap-project-name", accounts.ADMIN,
                     "--bootstrap-region-id", REGION,
                     *(word for interface in ("admin", "internal", "public")
                       for word in (f"--bootstrap-{interface}-url", url(self.site))))

    def _manage(self, *words: str) -> None:
        self.run(self.site.packages.program("keystone-manage"), "--config-file",
                 self.directory / "keystone.conf", *words,
                 variables={"OS_BOOTSTRAP_PASSWORD": self.site.state.password(accounts.ADMIN)})

    def is_ready(self) -> bool:
        return token(self.site) is not None

    def settle(self) -> None:
        accounts.ensure(self.site, url(self.site))

"""Placement, which counts what the compute hosts have and what is taken."""

from __future__ import annotations

from tests.cloud import keystone
from tests.cloud.service import Site, WsgiService, ask

NAME = "placement"


class Placement(WsgiService):
    module = "placement.wsgi.api"
    kind = "placement"

    def __init__(self, site: Site) -> None:
        super().__init__(site, NAME)

    def files(self) -> dict[str, str]:
        return {"placement.conf": self.ini("placement.conf", {
            "placement_database": {"connection": self.site.database(NAME)},
            "keystone_authtoken": keystone.middleware(self.site, NAME)})}

    def variables(self) -> dict[str, str]:
        return {"OS_PLACEMENT_CONFIG_DIR": str(self.directory)}

    def prepare(self) -> None:
        self.run(self.site.packages.program("placement-manage"), "--config-file",
                 self.directory / "placement.conf", "db", "sync")

    def is_ready(self) -> bool:
        """It knows Keystone and its database."""
        token = keystone.recent_token(self.site)
        answer = ask(f"{self.url}/resource_providers?name=none",
                     {"X-Auth-Token": token}) if token else None
        return answer is not None and answer.status == 200

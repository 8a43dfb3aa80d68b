"""Glance with two file stores; one API or several over the same database."""

from __future__ import annotations

from tests.cloud import keystone
from tests.cloud.service import Site, WsgiService, ask

NAME = "glance"
#: The first one is the default.
STORES = ("fast", "second")
#: As Glance ships it, for overrides that have this project's filter out of it.
PIPELINE = "cors http_proxy_to_wsgi versionnegotiation osprofiler authtoken context rootapp"
#: Glance's own: what is being imported, and what a task works on.
_RESERVED = ("os_glance_staging_store", "os_glance_tasks_store")


def name(number: int) -> str:
    """Of the first, second ... API."""
    return NAME if number == 1 else f"{NAME}-{number}"


class Glance(WsgiService):
    """:param number: only the first one is in the catalogue"""

    module = "glance.wsgi.api"
    # A transfer holds a thread for its whole length.
    threads = 8
    loads_driver = True

    def __init__(self, site: Site, number: int = 1) -> None:
        super().__init__(site, name(number))
        self.kind = "image" if number == 1 else ""
        self.processes = site.state.settings.glance_workers
        # One for all of them: an image staged through one is imported by another.
        self.stores = site.directory / "images"

    def files(self) -> dict[str, str]:
        return {
            "glance-api.conf": self.ini("glance-api.conf", {
                "DEFAULT": {"enabled_backends": ", ".join(f"{store}:file" for store in STORES),
                            "public_endpoint": self.url,
                            "worker_self_reference_url": self.url},
                "database": {"connection": self.site.database(NAME)},
                "glance_store": {"default_backend": STORES[0]},
                **{store: {"filesystem_store_datadir": self.stores / store}
                   for store in (*STORES, *_RESERVED)},
                "keystone_authtoken": keystone.middleware(self.site, NAME),
                "paste_deploy": {"flavor": "keystone",
                                 "config_file": self.directory / "glance-api-paste.ini"},
                "oslo_concurrency": {"lock_path": self.site.directory / "locks"}}),
            "glance-image-import.conf": self.ini("glance-image-import.conf", {
                "image_import_opts": {"image_import_plugins": "[splitimage_split]"},
                "splitimage": {"config_file": self.directory / "splitimage.conf"}}),
            "splitimage.conf": self.ini("splitimage.conf", {
                "split": {"directory": self.directory / "splitting"}}),
            "glance-api-paste.ini": self.ini(
                "glance-api-paste.ini", {
                    "composite:api": {
                        "keystone": PIPELINE.replace("context", "context splitimage")},
                    "filter:splitimage": {"use": "egg:splitimage-driver#splitimage",
                                          "config_file": self.directory / "splitimage.conf"}},
                self.site.packages.packaged("etc/glance/glance-api-paste.ini")),
        }

    def variables(self) -> dict[str, str]:
        return {"OS_GLANCE_CONFIG_DIR": str(self.directory)}

    def prepare(self) -> None:
        for store in (*STORES, *_RESERVED):
            (self.stores / store).mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.site.directory / "locks").mkdir(mode=0o700, exist_ok=True)
        if self.name == NAME:
            self.run(self.site.packages.program("glance-manage"), "--config-file",
                     self.directory / "glance-api.conf", "db", "sync")

    def is_ready(self) -> bool:
        """It knows Keystone and its database."""
        token = keystone.token(self.site)
        answer = ask(f"{self.url}/v2/images?limit=1", {"X-Auth-Token": token}) if token else None
        return answer is not None and answer.status == 200

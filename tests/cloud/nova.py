"""Nova without its compute hosts: API, conductor, scheduler."""

from __future__ import annotations

import calendar
import hashlib
import json
import time
from pathlib import Path
from typing import Any

from tests.cloud import ROOT, accounts, keystone, messages
from tests.cloud.daemon import Daemon
from tests.cloud.service import REGION, Service, Site, WsgiService, ask

NAME = "nova"
API, CONDUCTOR, SCHEDULER = "nova-api", "nova-conductor", "nova-scheduler"
#: Its databases: of the API, of servers that no host took, of the one cell.
DATABASES = ("nova_api", "nova_cell0", "nova")
#: Name to processors, MiB of memory, GiB of disk.
FLAVORS = {"tiny": (1, 256, 1), "small": (1, 512, 4), "medium": (2, 1024, 10),
           "large": (2, 2048, 20)}
_WEIGHER = "splitimage_driver.nova.weigher.SplitImageWeigher"
#: Cells know the addresses of what they use in this form, so that they may change.
_TEMPLATE = "{scheme}://{username}:{password}@{hostname}:{port}/"


def control(site: Site) -> dict[str, dict[str, object]]:
    """What those are told that may use the databases, by section of ``nova.conf``."""
    return {"api_database": {"connection": site.database("nova_api", NAME)},
            "database": {"connection": site.database("nova", NAME)}, **common(site)}


def common(site: Site) -> dict[str, dict[str, object]]:
    """What all of Nova's services are told."""
    client = keystone.client(site, NAME)
    internal: dict[str, object] = {"region_name": REGION, "valid_interfaces": "internal"}
    weighers = ["nova.scheduler.weights.all_weighers"]
    if site.state.settings.with_driver and _file(_WEIGHER).exists():
        weighers.append(_WEIGHER)
    return {
        "DEFAULT": {
            "transport_url": messages.url(site), "host": "controller",
            # A host is said to be down after a minute without a sign.
            "report_interval": 5,
            # The first round of what is done now and then: at once, not within a minute.
            "periodic_fuzzy_delay": 0,
            "graceful_shutdown_timeout": 3, "manager_shutdown_timeout": 2},
        "keystone_authtoken": keystone.middleware(site, NAME),
        # With it a tenant's token is good for as long as the work takes.
        "service_user": {"send_service_user_token": "true", **client},
        "placement": {**client, **internal}, "neutron": {**client, **internal},
        "glance": internal,
        "conductor": {"workers": 1},
        "scheduler": {"workers": 1, "discover_hosts_in_cells_interval": 5},
        "filter_scheduler": {"weight_classes": ",".join(weighers)},
        "oslo_concurrency": {"lock_path": site.directory / "locks"},
        "oslo_policy": {"enforce_scope": "false"},
        "key_manager": {"backend": "nova.keymgr.conf_key_mgr.ConfKeyManager"},
        "quota": {"instances": -1, "cores": -1, "ram": -1},
        "vnc": {"enabled": "false"}}


def get(site: Site, path: str) -> Any:
    """What the API answers an administrator; None: nothing good."""
    token = keystone.recent_token(site)
    answer = ask(f"{site.url(API)}/v2.1/{path}", {
        "X-Auth-Token": token, "OpenStack-API-Version": "compute 2.90"}) if token else None
    return json.loads(answer.body) if answer is not None and answer.status == 200 else None


def reports(site: Site, daemon: Daemon, binary: str, host: str) -> bool:
    """The service has told the others that it is there since it was started."""
    began = daemon.began
    for entry in (get(site, f"os-services?binary={binary}&host={host}") or {}).get("services", []):
        told = entry["updated_at"]
        if entry["state"] == "up" and began is not None and (
                told is None or calendar.timegm(time.strptime(
                    told.partition(".")[0], "%Y-%m-%dT%H:%M:%S")) >= int(began)):
            return True
    return False


class Api(WsgiService):
    module = "nova.wsgi.osapi_compute"
    kind = "compute"

    def __init__(self, site: Site) -> None:
        super().__init__(site, API)

    @property
    def endpoint(self) -> str:
        return f"{self.url}/v2.1"

    def files(self) -> dict[str, str]:
        return {"nova.conf": self.ini("nova.conf", control(self.site)),
                "api-paste.ini": self.site.packages.packaged("etc/nova/api-paste.ini")}

    def variables(self) -> dict[str, str]:
        return {"OS_NOVA_CONFIG_DIR": str(self.directory)}

    def prepare(self) -> None:
        """Tables, and the one cell that all hosts are in."""
        (self.site.directory / "locks").mkdir(mode=0o700, exist_ok=True)
        self._manage("api_db", "sync")
        self._manage("cell_v2", "map_cell0", "--database_connection", f"{_TEMPLATE}nova_cell0")
        if not self.site.state.is_done("nova cell", "1"):
            # 2: it is there already.
            self._manage("cell_v2", "create_cell", "--name", "cell1", "--transport-url", _TEMPLATE,
                         "--database_connection", f"{_TEMPLATE}nova", ok=(0, 2))
            self.site.state.set_done("nova cell", "1")
        self._manage("db", "sync")

    def _manage(self, *words: str, ok: tuple[int, ...] = (0,)) -> None:
        self.run(self.site.packages.program("nova-manage"), "--config-file",
                 self.directory / "nova.conf", *words, ok=ok)

    def is_ready(self) -> bool:
        """It knows Keystone and its databases."""
        return get(self.site, "servers?limit=1") is not None

    def settle(self) -> None:
        """Flavors."""
        key = hashlib.sha256(json.dumps(FLAVORS).encode()).hexdigest()
        if self.site.state.is_done("flavors", key):
            return
        with accounts.connect(accounts.clouds_file(self.site), accounts.ADMIN) as cloud:
            for name, (processors, memory, disk) in FLAVORS.items():
                if cloud.compute.find_flavor(name) is None:
                    cloud.compute.create_flavor(name=name, vcpus=processors, ram=memory, disk=disk)
        self.site.state.set_done("flavors", key)


class Worker(Service):
    """One that is spoken to through messages only.

    :param name: its name here, and of its program
    """

    def __init__(self, site: Site, name: str) -> None:
        super().__init__(site, name)
        self.loads_driver = name == SCHEDULER  # the weigher

    @property
    def url(self) -> str:
        return messages.NAME

    def ports(self) -> tuple[str, ...]:
        return ()

    def files(self) -> dict[str, str]:
        return {"nova.conf": self.ini("nova.conf", control(self.site))}

    def words(self) -> list[str | Path]:
        return [self.site.packages.program(self.name), "--config-file",
                self.directory / "nova.conf"]

    def prepare(self) -> None:
        pass

    def is_ready(self) -> bool:
        return reports(self.site, self.daemon, self.name, "controller")


def _file(name: str) -> Path:
    """Of this project, the source that has the class."""
    return ROOT.joinpath(*name.split(".")[:-1]).with_suffix(".py")

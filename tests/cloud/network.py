"""The network service that Nova asks: it has no networks, and says so."""

from __future__ import annotations

from pathlib import Path

from tests.cloud import ROOT
from tests.cloud.service import Site, WsgiService, ask

NAME = "network"


class Network(WsgiService):
    module = "tests.cloud.nonetwork"
    kind = "network"
    threads = 2
    prepare_key = "1"

    def __init__(self, site: Site) -> None:
        super().__init__(site, NAME)

    def files(self) -> dict[str, str]:
        return {}

    def words(self) -> list[str | Path]:
        return [*super().words(), "--pythonpath", ROOT]

    def prepare(self) -> None:
        pass

    def is_ready(self) -> bool:
        answer = ask(f"{self.url}/v2.0/networks")
        return answer is not None and answer.status == 200

"""The demonstration: one gold machine, five launches, one table.

``./run demo`` builds a Debian 12 machine in four states, captures it as one
composite image, launches five requests one after the other, has each answer
over HTTP, and reports what each cost.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from demo import gold, report
from splitimage_driver import exceptions, progress
from splitimage_driver.application import Application
from splitimage_driver.capture.machine import Gold
from splitimage_driver.model.plan import Request
from splitimage_driver.servers import Launched, Wish

HOME = Path(__file__).resolve().parent.parent / ".cache" / "demo"
PAGE = Path(__file__).resolve().parent / "page"
COMPOSITE = "lamp"
#: Name of a request, its parts, whether the tenant's page comes with it.
REQUESTS = (
    ("apache+php", ("apache", "php"), False),
    ("apache+php again", ("apache", "php"), False),
    ("apache+php+mysql", ("apache", "php", "mysql"), False),
    ("apache", ("apache",), False),
    ("apache+php+mysql+page", ("apache", "php", "mysql"), True),
)
BOOT_TIMEOUT = 600.0
#: Key of a row, heading, what a unit of the heading is in the row's.
_NUMBERS = (("predicted_cost", "Cost\ns", 1.0), ("bytes_fetched", "Fetched\nMB", 1e6),
            ("bytes_injected", "Injected\nMB", 1e6), ("assembly_seconds", "Assembly\ns", 1.0),
            ("boot_seconds", "Boot\ns", 1.0), ("http_seconds", "HTTP\ns", 1.0))
_LEGEND = ("Cost: predicted. Boot: until ssh answers. HTTP: from the request to the first "
           "status 200.")


class Demo:
    """:param home: directory for the store and the report
    :param steps: what is captured, of the gold machine's
    :param requests: as :data:`REQUESTS`
    """

    def __init__(self, home: Path, *, steps: Sequence[gold.Step] = gold.LAMP,
                 requests: Sequence[tuple[str, tuple[str, ...], bool]] = REQUESTS,
                 console: Console | None = None) -> None:
        self.home, self.console = home, console or Console()
        self.steps, self.requests = steps, requests
        self.began = time.monotonic()
        self.timeline: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []

    def say(self, text: str) -> None:
        self.console.print(f"[dim]{time.monotonic() - self.began:6.1f} s[/]  {text}")

    @contextlib.contextmanager
    def timed(self, name: str, kind: str) -> Iterator[dict[str, float]]:
        """Note the block in the timeline; yields its start and end."""
        event: dict[str, Any] = {"name": name, "kind": kind,
                                 "start": time.monotonic() - self.began}
        try:
            yield event
        finally:
            event["end"] = time.monotonic() - self.began
            self.timeline.append(event)

    def run(self) -> Path:
        """Everything; returns the report's path."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        application = Application(self.home / "store")
        with contextlib.closing(application.store):
            self.capture(application)
            page = application.images.create_part("page", PAGE)
            for name, parts, own_page in self.requests:
                self.launch(application, name, Request(
                    composite=COMPOSITE, parts=parts, filesets=(page.id,) if own_page else ()),
                    "/parts.php" if own_page else "/")
            damage = [f for f in application.store.check() if not f.harmless]
            if damage:
                raise SystemExit(f"demo: the store is damaged: {damage[0]}")
            facts = self.facts(application)
        path = self.home / "report.html"
        path.write_text(report.render(self.rows, self.timeline, facts))
        return path

    # -- steps ----------------------------------------------------------------------

    def capture(self, application: Application) -> None:
        self.say("building a Debian 12 gold machine: OS, apache2, mariadb-server, php")
        with self.timed("gold machine", "build"):
            tars = gold.build_steps(gold.CACHE, gold.LAMP)
            disk = gold.bios_disk(tars[gold.BASE], self.home / "gold.qcow2")
        self.say("capturing it as one composite image")
        with self.timed("composite image", "capture"):
            composite = application.images.capture(COMPOSITE, Gold(
                disk=disk, steps=tuple((s.name, tars[s.name]) for s in self.steps)))
        disk.unlink()
        for name in sorted(composite.parts):
            part = application.store.part(composite.parts[name].id)
            self.say(f"  part {name}: {part.files} files, {part.size / 1e6:.0f} MB, stored in "
                     f"{part.blob_size / 1e6:.0f} MB")

    def launch(self, application: Application, name: str, request: Request, path: str) -> None:
        self.say(f"launching [bold]{name}[/]")
        servers = application.servers
        with self.timed(name, "assemble") as assembly:
            launched = servers.launch(Wish(request=request, ports=(22, 80)))
        server, plan = launched.servers[0], launched.plan
        booted: list[float] = []

        def login() -> None:
            with contextlib.suppress(exceptions.SplitImageError):
                booted.append(servers.launcher.wait(server, 22, timeout=BOOT_TIMEOUT))

        try:
            with self.timed(name, "boot") as boot:
                ssh = threading.Thread(target=login, daemon=True)
                ssh.start()
                seconds, status, body = servers.launcher.wait_http(server, 80, path,
                                                                   timeout=BOOT_TIMEOUT)
            ssh.join(BOOT_TIMEOUT)
        finally:
            servers.delete(server.id)
        if path != "/":
            self.say("  its page says:")
            for line in body.decode(errors="replace").splitlines():
                self.console.print(f"              {line}", markup=False, highlight=False)
        self.say(f"  {plan.estimate.match} match, made from {plan.estimate.candidate.name}, "
                 f"HTTP {status} after {seconds:.1f} s")
        self.rows.append(self.row(name, launched, booted[0] if booted else None,
                                  boot["end"] - assembly["start"]))

    @staticmethod
    def row(name: str, launched: Launched, boot: float | None, http: float) -> dict[str, Any]:
        plan = launched.plan
        return {"request": name, "match": plan.estimate.match,
                "candidate": plan.estimate.candidate.name,
                "predicted_cost": plan.estimate.cost,
                "bytes_fetched": plan.estimate.fetch_bytes,
                "bytes_injected": int(launched.measured.get("injected_bytes", 0)),
                "assembly_seconds": launched.measured["assembly_seconds"],
                "boot_seconds": boot, "http_seconds": http}

    def facts(self, application: Application) -> dict[str, Any]:
        qemu = subprocess.run(
            [str(application.conf.launch.qemu), "--version"], capture_output=True, text=True,
            check=True).stdout.splitlines()[0]
        size = sum(f.stat().st_blocks * 512 for f in application.path.rglob("*") if f.is_file())
        disks = sum(i.disk_size for i in application.store.images())
        return {"splitimage-driver": metadata.version("splitimage-driver"),
                "accelerator": application.accelerator, "qemu": qemu,
                "processors": os.cpu_count(), "kernel": platform.release(),
                "python": platform.python_version(),
                "store": f"{size / 1e6:.0f} MB, of which completed images {disks / 1e6:.0f} MB",
                "whole demonstration": f"{time.monotonic() - self.began:.0f} s"}

    def tell(self, path: Path) -> None:
        """Print the result; ``path`` is the report's."""
        self.console.print()
        self.console.print(self.table())
        self.console.print(f"\n[dim]{_LEGEND}[/]")
        # Not broken, so that it can be taken from the terminal as a whole.
        self.console.print(f"\nreport: {path}", soft_wrap=True, highlight=False)

    def table(self) -> Table:
        """The launches within 80 columns: two lines each, units in the headings."""
        table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("Request\n  made from", overflow="fold")
        table.add_column("Match\n", overflow="fold")
        for _, heading, _ in _NUMBERS:
            table.add_column(heading, justify="right", overflow="fold")
        for row in self.rows:
            table.add_row(f"{row['request']}\n  [dim]{row['candidate']}[/]", row["match"],
                          *(_number(row[key], scale) for key, _, scale in _NUMBERS))
        return table


def _number(value: float | None, scale: float) -> str:
    return "-" if value is None else f"{value / scale:.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run demo", description=__doc__)
    parser.add_argument("--home", type=Path, default=HOME,
                        help="directory for store and report, emptied first")
    demo = Demo(parser.parse_args().home)
    listener = demo.console.status("")
    try:
        with listener, progress.listening(lambda event: listener.update(
                f"{event.operation} {event.subject}")):
            path = demo.run()
    except exceptions.SplitImageError as error:
        print(f"demo: {error}\n  hint: {error.advice}", file=sys.stderr)
        return error.exit_code
    demo.tell(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())

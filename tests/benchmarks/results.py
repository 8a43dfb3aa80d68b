"""What the benchmarks found: numbers with the machine and the versions."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
HOME = ROOT / ".cache" / "benchmarks"


class Results:
    """:ivar seconds: name to what each round took
    :ivar ratios: name to (ratio of the medians, bound)
    """

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self.ratios: dict[str, tuple[float, str]] = {}
        self.facts: dict[str, Any] = {}

    def note(self, name: str, seconds: float) -> None:
        self.seconds.setdefault(name, []).append(seconds)

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def ratio(self, one: str, other: str, bound: str) -> float:
        """Of the medians; ``bound`` says what it should be."""
        found = self.median(one) / self.median(other)
        self.ratios[f"{one} / {other}"] = (found, bound)
        return found

    def lines(self) -> list[str]:
        """For a terminal."""
        lines = [f"{name}: {value}" for name, value in self.facts.items()]
        lines += ["", f"{'':44} {'median':>8} {'rounds, s'}"]
        for name, rounds in self.seconds.items():
            told = " ".join(f"{seconds:.3g}" for seconds in rounds)
            lines.append(f"{name:44} {self.median(name):7.2f}s {told}")
        lines.append("")
        lines += [f"{name}: {found:.3f} (bound: {bound})"
                  for name, (found, bound) in self.ratios.items()]
        return lines

    def save(self) -> Path:
        now = datetime.datetime.now(tz=datetime.UTC).astimezone()
        HOME.mkdir(parents=True, exist_ok=True)
        path = HOME / f"{now:%Y-%m-%d-%H%M%S}.json"
        path.write_text(json.dumps({
            "date": now.isoformat(timespec="seconds"), "facts": self.facts,
            "seconds": self.seconds,
            "ratios": {name: {"ratio": found, "bound": bound}
                       for name, (found, bound) in self.ratios.items()}}, indent=1))
        return path


def machine() -> dict[str, Any]:
    """The machine and the versions that matter."""
    cpu = next((line.partition(":")[2].strip() for line in
                Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "machine": f"{os.cpu_count()} x {cpu}, {memory / 2**30:.0f} GiB",
        "kernel": platform.release(), "python": platform.python_version(),
        "commit": _said("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "qemu": _said("qemu-system-x86_64", "--version"),
        "guestfish": _said("guestfish", "--version"),
        "virt-customize": _said("virt-customize", "--version"),
        "sqfs2tar": _said("sqfs2tar", "--version"),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _said(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().partition("\n")[0]

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from demo.__main__ import REQUESTS, Demo


def test_the_result_fits_a_terminal_of_80_columns_with_nothing_cut_off() -> None:
    output = io.StringIO()
    demo = Demo(Path("/nowhere"), console=Console(file=output, width=80))
    demo.rows = [{"request": name, "match": "superset", "candidate": "lamp+apache+mysql+php",
                  "predicted_cost": 112.34, "bytes_fetched": 409_200_000,
                  "bytes_injected": 1_409_200_000, "assembly_seconds": 140.04,
                  "boot_seconds": None, "http_seconds": 233.3} for name, _, _ in REQUESTS]
    demo.tell(Path("/nowhere/report.html"))
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in output.getvalue()
    row = next(line for line in lines if REQUESTS[-1][0] in line)
    assert row.split() == [REQUESTS[-1][0], "superset", "112.3", "409.2", "1409.2", "140.0", "-",
                           "233.3"]
    assert lines[-1] == "report: /nowhere/report.html"

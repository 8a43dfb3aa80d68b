"""``splitimage plan --catalog``, as it is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from splitimage_driver.cli.main import main

APACHE = {"path": "usr/sbin/apache2", "size": 10**8, "digest": "a"}
PHP = {"path": "usr/bin/php", "size": 2 * 10**8, "digest": "p"}
PAGE = {"path": "srv/index.php", "size": 1000, "digest": "i"}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    catalog = {"images": [
        {"id": "base", "os": "debian", "files": []},
        {"id": "lamp", "os": "debian", "files": [APACHE, PHP], "fetch_bytes": 10**8}]}
    requests = {"requests": [
        {"id": "web", "os": "debian", "parts": ["apache"]},
        {"id": "site", "os": "debian", "parts": ["apache", "site"]}],
        "parts": {"apache": [APACHE], "site": {"files": [PHP, PAGE], "inject_seconds": 3}}}
    (tmp_path / "catalog.json").write_text(json.dumps(catalog))
    (tmp_path / "requests.json").write_text(json.dumps(requests))
    return ["--catalog", str(tmp_path / "catalog.json"),
            "--requests", str(tmp_path / "requests.json"), "--bandwidth", "1e8",
            "--inject-rate", "1e8", "--inject-seconds", "0", "--remove-seconds", "0.5"]


def told(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["plan", *words, "-f", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_plans_have_just_what_is_promised(files: list[str],
                                          capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, *files, "--cost", "remove") == {"plans": [
        {"request": "web", "match": "superset", "image": "lamp", "missing": [],
         "excess": ["usr/bin/php"],
         "cost": {"total": 1.5, "download": 1, "inject": 0, "remove": 0.5, "transport": 0}},
        {"request": "site", "match": "subset", "image": "lamp", "missing": ["srv/index.php"],
         "excess": [],
         "cost": {"total": pytest.approx(4.00001), "download": pytest.approx(1.00001),
                  "inject": 3, "remove": 0, "transport": 0}}]}


def test_a_batch_is_told_in_an_order_that_can_be_executed(
        files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, *files, "--cost", "remove", "--batch", "--publish-seconds", "1")
    # To take two files off the larger one is cheaper than to fetch it again.
    assert found == {"total": pytest.approx(7.00001), "steps": [
        {"request": "site", "from": "image:lamp", "cost": pytest.approx(5.00001)},
        {"request": "web", "from": "request:site", "cost": 2}]}
    shared = told(capsys, *files, "--cost", "remove", "--batch", "--shared")
    assert 0 < shared["lower_bound"] <= shared["total"] <= found["total"]


def test_losers_are_explained(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    plans = told(capsys, *files, "--explain", "--top", "2")["plans"]
    assert [c["image"] for c in plans[0]["considered"]] == ["base"]
    assert plans[0]["considered"][0]["lost"]["term"] == "inject"
    assert plans[0]["considered"][0]["lost"]["files"] == ["usr/sbin/apache2"]
    assert main(["plan", *files, "--explain"]) == 0
    shown = capsys.readouterr().out
    assert "base (2.0 s): inject +1.0 s" in shown and "usr/sbin/apache2" in shown


def test_an_error_is_one_line_that_names_the_place(
        files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "catalog.json").write_text(json.dumps(
        {"images": [{"id": "i", "os": "debian", "files": [{**APACHE, "size": -1}]}]}))
    assert main(["plan", *files]) == 15
    message, hint = capsys.readouterr().err.splitlines()
    assert "$.images[0].files[0].size" in message
    assert hint.startswith("  hint: ")


@pytest.mark.parametrize("words", [
    [], ["lamp", "--alpha", "2"], ["--requests", "x"], ["--catalog", "x"],
    ["--catalog", "x", "--requests", "x", "lamp"],
    ["--catalog", "x", "--requests", "x", "--shared"],
    ["--catalog", "x", "--requests", "x", "--publish-seconds", "1"],
    ["--catalog", "x", "--requests", "x", "--top", "3"],
    ["--catalog", "x", "--requests", "x", "--batch", "--explain"],
    *(["--catalog", "x", "--requests", "x", option, value]
      for option in ("--bandwidth", "--inject-rate", "--inject-seconds", "--alpha")
      for value in ("nan", "-1", "inf", "much")),
    ["--catalog", "x", "--requests", "x", "--bandwidth", "0"],
])
def test_words_that_do_not_go_together_are_refused(
        words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 2
    assert "error:" in capsys.readouterr().err

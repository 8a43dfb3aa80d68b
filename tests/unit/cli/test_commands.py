"""What commands ask of the services, and how they show the answers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest

from splitimage_driver import exceptions
from splitimage_driver.batches import Outcome
from splitimage_driver.capture.inspect import Proposal, Service, Software
from splitimage_driver.capture.machine import Gold
from splitimage_driver.doctor import Check
from splitimage_driver.model.composite import System
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.layout import Layout
from splitimage_driver.model.part import Layer, Part, PartManifest, Row
from splitimage_driver.model.plan import BatchStep, Lost, Quantity, Request
from splitimage_driver.planning.cost import Rates
from splitimage_driver.planning.weights import Weighing
from splitimage_driver.servers import Launched, Wish
from splitimage_driver.service import Assembled
from splitimage_driver.store.records import Finding, Need, QueueItem

from . import records
from .conftest import Done

Run = Callable[..., Done]


def parts_of(application: Any) -> None:
    application.store.composite.return_value = records.composite()
    application.store.composites.return_value = [records.composite()]
    application.store.composite_names.return_value = {"c0ffee00-0000": "lamp"}
    found = {p.id: p for p in records.PARTS.values()}

    def part(part_id: str, owner: str | None = None) -> Part:
        if part_id not in found:
            raise exceptions.NotFound(kind="part", name=part_id, where="/store")
        return found[part_id]

    application.store.part.side_effect = part


# -- inspect, capture ------------------------------------------------------------------

PROPOSAL = Proposal(
    system=System("debian", "12", "Debian 12", "x86_64", "dpkg"),
    software=(Software(name="apache", packages=("apache2",),
                       services=(Service("apache2.service", "apache2", True),
                                 Service("other.service", "apache2", False)),
                       exclusive=("apache2", "apache2-bin"), exclusive_bytes=5 << 20,
                       shared_bytes=1 << 20, requires=()),),
    base_packages=150, base_bytes=300 << 20, rest=("vim",), notes=(),
    arguments=("--software", "apache=apache2"))


def test_inspect_proposes_a_capture(run: Run, application: Any) -> None:
    application.images.inspect.return_value = PROPOSAL
    shown = run("inspect", "my gold.qcow2").out
    assert "splitimage capture NAME --disk 'my gold.qcow2' --software apache=apache2" in shown
    assert "5.0 MiB" in shown
    assert "other.service" not in shown
    found = json.loads(run("inspect", "my gold.qcow2", "-f", "json").out)
    assert found["arguments"] == ["--software", "apache=apache2"]
    assert found["software"][0]["own_packages"] == ["apache2", "apache2-bin"]
    assert found["base_size"] == 300 << 20
    application.images.inspect.assert_called_with(Path("my gold.qcow2"))


@pytest.mark.parametrize(("words", "gold"), [
    (("--step", "base=b.qcow2", "--step", "apache=a.qcow2", "--step", "php=p.tar"),
     Gold(disk=Path("b.qcow2"), steps=(("apache", Path("a.qcow2")), ("php", Path("p.tar"))))),
    (("--disk", "g.qcow2", "--software", "apache=apache2", "--software", "db=one,two"),
     Gold(disk=Path("g.qcow2"), software={"apache": ("apache2",), "db": ("one", "two")})),
])
def test_capture_hands_the_machine_over(words: tuple[str, ...], gold: Gold, run: Run,
                                        application: Any) -> None:
    parts_of(application)
    application.images.capture.return_value = records.composite()
    assert run("capture", "lamp", *words).status == 0
    application.images.capture.assert_called_once_with(
        "lamp", gold, onto=None, renumber=False, public=False)


def test_capture_knows_the_hardware(run: Run, application: Any, tmp_path: Path) -> None:
    parts_of(application)
    application.images.capture.return_value = records.composite()
    (tmp_path / "facts.json").write_text('{"firmware": "uefi"}')
    run("capture", "lamp", "--disk", "g", "--software", "a=b", "--onto", "c", "--renumber",
        "--public", "--hardware", tmp_path / "facts.json")
    application.images.capture.assert_called_once_with(
        "lamp", Gold(disk=Path("g"), software={"a": ("b",)}, hardware={"firmware": "uefi"}),
        onto="c", renumber=True, public=True)


@pytest.mark.parametrize("words", [
    (), ("--disk", "g", "--step", "base=b"), ("--step", "apache=a"), ("--software", "a=b"),
    ("--disk", "g", "--software", "a=b", "--software", "a=c"),
    ("--disk", "g", "--software", "a=b", "--hardware", "/no/such/file"),
])
def test_capture_refuses_what_does_not_fit_together(words: tuple[str, ...], run: Run,
                                                    application: Any) -> None:
    assert run("capture", "lamp", *words).status == 15
    application.images.capture.assert_not_called()


# -- composites, conflicts ---------------------------------------------------------------

def test_composites_of_others_are_listed_where_public(run: Run, application: Any) -> None:
    application.store.composites.return_value = [
        records.composite(), records.composite(name="theirs", owner="other"),
        records.composite(name="shared", owner="other", public=True)]
    found = json.loads(run("composite", "list", "-f", "json").out)
    assert [c["name"] for c in found] == ["lamp", "shared"]
    assert found[0]["parts"] == ["apache", "php"]
    assert "c0ffee00" not in run("composite", "list").out
    assert "c0ffee00" in run("composite", "list", "--long").out


def test_a_composite_of_another_project_is_not_there(run: Run, application: Any) -> None:
    application.store.composite.return_value = records.composite(owner="other")
    assert run("composite", "show", "lamp").status == 10


def test_dependency_parts_are_counted_and_shown_on_request(run: Run, application: Any) -> None:
    parts_of(application)
    shown = run("composite", "show", "lamp").out
    assert "1 dependency parts come along by themselves" in shown
    assert "| dependency |" not in shown
    assert "they differ" in shown
    assert "replace php" in shown
    assert "disk.size: 3.0 GiB" in shown
    found = json.loads(run("composite", "show", "lamp", "--all", "-f", "json").out)
    assert {p["name"]: p["kind"] for p in found["parts"]} == {
        "apache": "software", "php": "software", "dep.apache.php": "dependency"}
    assert found["conflicts"][0] == {"path": "/etc/motd", "parts": ["apache", "php"],
                                     "reason": "they differ", "answer": ""}
    assert found["hardware"]["drivers"] == [f"driver{n}" for n in range(9)]


def test_tables_within_an_object_are_chosen_like_its_fields(run: Run, application: Any) -> None:
    parts_of(application)
    shown = run("composite", "show", "lamp", "-c", "parts").out
    assert "| apache |" in shown
    assert "Field" not in shown
    assert "they differ" not in shown
    both = run("composite", "show", "lamp", "-c", "name", "-c", "conflicts").out
    assert "| name" in both
    assert "they differ" in both
    assert "| apache |" not in both
    [only] = json.loads(run("composite", "show", "lamp", "-c", "parts", "-f", "json").out)
    assert only == "parts"


def test_a_column_that_there_is_not_is_told_before_anything_is_done(run: Run,
                                                                    application: Any) -> None:
    parts_of(application)
    for words in (("image", "prune"), ("composite", "show", "lamp")):
        done = run(*words, "-c", "nonsense")
        assert done.status == 15
        assert "column nonsense" in done.err
        assert "name" in done.err
    application.store.prune_images.assert_not_called()


def test_a_composite_changes(run: Run, application: Any) -> None:
    parts_of(application)
    application.store.parts.return_value = [records.PAGE]
    services = application.composites
    for method in (services.add_part, services.replace_part, services.remove_part):
        method.return_value = records.composite()
    run("composite", "add-part", "lamp", "page", "--requires", "apache")
    run("composite", "add-part", "lamp", records.PAGE.id[:12], "--name", "site")
    run("composite", "replace-part", "lamp", "php", "page")
    run("composite", "remove-part", "lamp", "php")
    assert services.add_part.call_args_list[0].args == ("lamp", records.PAGE.id)
    assert services.add_part.call_args_list[0].kwargs == {"name": "page", "requires": ["apache"]}
    assert services.add_part.call_args_list[1].kwargs == {"name": "site", "requires": []}
    services.replace_part.assert_called_once_with("lamp", "php", records.PAGE.id)
    services.remove_part.assert_called_once_with("lamp", "php")


def test_a_composite_is_deleted_with_its_parts(run: Run, application: Any) -> None:
    application.composites.composite.return_value = records.composite()
    assert run("composite", "delete", "lamp").status == 0
    application.store.delete_composite.assert_called_with("c0ffee00-0000", parts=True)
    run("composite", "delete", "lamp", "--keep-parts")
    application.store.delete_composite.assert_called_with("c0ffee00-0000", parts=False)


def test_conflicts_are_listed_open_ones_first(run: Run, application: Any) -> None:
    parts_of(application)
    for words in (("lamp",), ()):
        found = json.loads(run("conflict", "list", *words, "-f", "json").out)
        assert [(c["path"], c["answer"]) for c in found] == [
            ("/etc/motd", ""), ("/etc/issue", "replace php")]


def test_a_conflict_is_answered(run: Run, application: Any, tmp_path: Path) -> None:
    application.composites.resolve.return_value = records.composite(conflicts=())
    (tmp_path / "motd").write_bytes(b"hello\n")
    assert run("conflict", "resolve", "lamp", "/etc/motd", "replace", "--part", "php").status == 0
    application.composites.resolve.assert_called_with(
        "lamp", "/etc/motd", "replace", part="php", content=b"")
    run("conflict", "resolve", "lamp", "/etc/motd", "file", "--file", tmp_path / "motd")
    application.composites.resolve.assert_called_with(
        "lamp", "/etc/motd", "file", part="", content=b"hello\n")


@pytest.mark.parametrize("words", [
    ("replace",), ("keep", "--part", "php"), ("file",), ("keep", "--file", "x"), ("perhaps",)])
def test_an_answer_has_what_belongs_to_it(words: tuple[str, ...], run: Run,
                                          application: Any) -> None:
    assert run("conflict", "resolve", "lamp", "/etc/motd", *words).status == 2
    application.composites.resolve.assert_not_called()


def test_access_is_repaired_of_one_composite_or_of_all(run: Run, application: Any) -> None:
    parts_of(application)
    application.store.reconcile.return_value = [Finding(
        kind="access", subject="web (1)", detail="private", repaired=True)]
    [done] = json.loads(run("composite", "reconcile", "lamp", "-f", "json").out)
    assert done == {"image": "web (1)", "done": "private"}
    gone = "2f6b6a1e-0d5c-4d0e-9a39-1c7a2f8f6e11"
    application.store.composite.reset_mock()
    run("composite", "reconcile", gone)
    application.store.composite.assert_not_called()
    run("composite", "reconcile")
    assert [call.args for call in application.store.reconcile.call_args_list] == [
        ("c0ffee00-0000",), (gone,), (None,)]


# -- parts, images ------------------------------------------------------------------------

def test_parts_are_listed_without_what_nobody_names(run: Run, application: Any) -> None:
    application.store.parts.return_value = [*records.PARTS.values(), records.PAGE]
    found = json.loads(run("part", "list", "-f", "json").out)
    assert [p["name"] for p in found] == ["apache", "php", "page"]
    assert len(json.loads(run("part", "list", "--all", "-f", "json").out)) == 4
    application.store.parts.assert_called_with(owner="default")


def test_a_parts_files_are_shown(run: Run, application: Any) -> None:
    application.store.parts.return_value = [records.PARTS["php"]]
    application.store.part_manifest.return_value = PartManifest((
        Layer(entries=(FileEntry(path=b"etc/php\x1b[1m.ini", type="f", mode=0o640, size=9),),
              rows=(Row(b"etc/passwd", b"php", b"php:x:1:"), Row(b"etc/passwd", b"two", b"")),),
        Layer(when=("apache",), deleted=(b"etc/apache/mode",))))
    found = json.loads(run("part", "show", "php", "--files", "-f", "json").out)["contents"]
    assert [(f["path"], f["what"], f["when"]) for f in found] == [
        ("/etc/apache/mode", "deleted", "apache"), ("/etc/passwd", "2 rows", ""),
        ("/etc/php\\x1b[1m.ini", "file", "")]
    assert found[2]["mode"] == "0640"
    assert "\x1b" not in run("part", "show", "php", "--files").out


def test_a_part_that_the_store_finds_is_not_looked_for_in_a_list(run: Run,
                                                                 application: Any) -> None:
    application.store.part.side_effect = [records.PAGE]
    assert json.loads(run("part", "show", "page", "-f", "json").out)["id"] == records.PAGE.id
    application.store.part.assert_called_once_with("page", owner="default")
    application.store.parts.assert_not_called()


def test_a_part_is_made_and_deleted(run: Run, application: Any, tmp_path: Path) -> None:
    application.images.create_part.return_value = records.PAGE
    application.store.parts.return_value = [records.PAGE]
    found = json.loads(run("part", "create", "page", "--from", tmp_path, "-f", "json").out)
    assert found["id"] == records.PAGE.id
    application.images.create_part.assert_called_once_with("page", tmp_path, allow_setuid=False)
    assert run("part", "delete", records.PAGE.id[:12]).status == 0
    application.store.delete_part.assert_called_once_with(records.PAGE.id, owner="default")


def test_images_are_listed_by_composite(run: Run, application: Any) -> None:
    parts_of(application)
    application.store.images.return_value = [records.image("lamp+apache", "a")]
    [found] = json.loads(run("image", "list", "--composite", "lamp", "-f", "json").out)
    application.store.images.assert_called_with(composite="c0ffee00-0000", owner="default")
    assert found["composite"] == "lamp"
    assert found["size"] == 5 << 20
    shown = run("image", "list").out
    assert "5.0 MiB" in shown
    assert "aaaaaaaa |" in shown
    assert run("image", "list", "-f", "value", "-c", "id").out == "aaaaaaaa-0000\n"


def test_an_image_goes_by_name_id_or_the_start_of_its_id(run: Run, application: Any) -> None:
    application.store.images.return_value = [
        records.image("one", "a"), records.image("two", "b"), records.image("two", "c")]
    for given in ("one", "aaaaaaaa-0000", "aaaaaaaa"):
        assert json.loads(run("image", "show", given, "-f", "json").out)["name"] == "one"
    assert run("image", "show", "three").status == 10
    done = run("image", "delete", "two")
    assert done.status == 15
    assert "bbbbbbbb-0000, cccccccc-0000" in done.err
    assert run("image", "delete", "one", "cccccccc").status == 0
    assert [call.args for call in application.store.delete_image.call_args_list] == [
        ("aaaaaaaa-0000",), ("cccccccc-0000",)]


def test_prune_tells_its_limits_and_what_went(run: Run, application: Any) -> None:
    application.store.prune_images.return_value = [records.image("old", "a")]
    [gone] = json.loads(run("image", "prune", "--max-count", "3", "--max-bytes", "0",
                            "-f", "json").out)
    assert gone["name"] == "old"
    application.store.prune_images.assert_called_once_with(
        owner="default", max_age=None, max_count=3, max_bytes=0)


def test_an_export_does_not_overwrite(run: Run, application: Any, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    assert run("image", "export", "one", "-o", tmp_path / "out").status == 11
    assert run("image", "export", "one", "-o", tmp_path / "no" / "out").status == 15
    assert run("image", "export", "one", "-o", tmp_path, "--force").status == 15
    assert (tmp_path / "out").read_text() == "mine"
    application.store.images.assert_not_called()


def test_parts_go_to_the_store_that_is_named(run: Run, application: Any, tmp_path: Path) -> None:
    parts_of(application)
    application.images.create_part.return_value = records.PAGE
    application.images.capture.return_value = records.composite()
    run("part", "create", "page", "--from", tmp_path)
    application.choose_image_store.assert_not_called()
    for words in (("part", "create", "page", "--from", tmp_path),
                  ("capture", "lamp", "--disk", "g", "--software", "a=b"),
                  ("assemble", "lamp")):
        run(*words, "--image-store", "fast")
    assert application.choose_image_store.call_args_list == [mock.call("fast")] * 3


def test_a_table_looks_no_composite_up_that_it_does_not_show(run: Run, application: Any) -> None:
    parts_of(application)
    application.store.images.return_value = [records.image("one", "a"), records.image("two", "b")]
    run("image", "list")
    application.store.composite_names.assert_not_called()
    found = json.loads(run("image", "list", "-f", "json").out)
    assert [each["composite"] for each in found] == ["lamp", "lamp"]
    application.store.composite_names.assert_called_once_with({"c0ffee00-0000"})


# -- plan, assemble ------------------------------------------------------------------------

def test_a_request_is_read(run: Run, application: Any) -> None:
    application.images.plan.return_value = records.plan()
    application.store.parts.return_value = [records.PAGE]
    assert run("plan", "lamp", "--part", "php", "--part", "apache", "--part", "php",
               "--fileset", records.PAGE.id, "--on-conflict", "/etc/motd=keep",
               "--cost", "bytes").status == 0
    [request], options = application.images.plan.call_args
    assert request.parts == ("php", "apache")
    assert request.filesets == (records.PAGE.id,)
    assert [(a.path, a.parts, a.action) for a in request.answers] == [(b"etc/motd", (), "keep")]
    assert options == {"explain": False, "cost": "bytes", "top": 5}


def test_one_question_has_one_answer(run: Run, application: Any) -> None:
    done = run("plan", "lamp", "--on-conflict", "/a=keep", "--on-conflict", "a=replace")
    assert done.status == 2
    application.images.plan.assert_not_called()


def test_an_explanation_has_every_candidate_and_term(run: Run, application: Any) -> None:
    application.images.plan.return_value = records.plan()
    found = json.loads(run("plan", "lamp", "--explain", "-f", "json").out)
    assert found["cost"] == 2.5
    assert found["terms"]["inject"] == {"value": 2.0, "unit": "s"}
    one, two = found["considered"]
    assert (one["rank"], one["candidate"], one["missing"]) == (
        1, "lamp+apache", {"files": 3, "bytes": 3 << 20})
    assert two["cost"] is None
    assert two["refused"] == "the content of /etc/x cannot be had"
    assert two["excess"] == {"files": 2, "bytes": 1024}
    shown = run("plan", "lamp", "--explain").out
    assert "inject 2.0 s" in shown
    assert "cannot be had" in shown
    assert "candidates" not in run("plan", "lamp").out


def test_an_explanation_names_what_made_a_candidate_lose(run: Run, application: Any) -> None:
    behind = msgspec.structs.replace(records.NEAREST, cost=9.0, lost=Lost(
        term="inject", seconds=6.5, files=("/usr/b", "/usr/a"), more=3))
    application.images.plan.return_value = records.plan(
        considered=(records.NEAREST, behind), rates=(Quantity(
            name="bandwidth", unit="B/s", configured=2e8, learnt=1.5, count=3, time=1.0,
            load=0.5, value=1e8),))
    found = json.loads(run("plan", "lamp", "--explain", "--top", "2", "-f", "json").out)
    assert application.images.plan.call_args.kwargs["top"] == 2
    assert found["considered"][0]["lost_by"] == {}
    assert found["considered"][1]["lost_by"] == {
        "term": "inject", "seconds": 6.5, "files": ["/usr/b", "/usr/a"], "more": 3}
    assert found["rates"][0]["used"] == 1e8
    shown = run("plan", "lamp", "--explain").out
    assert "inject +6.5 s" in shown and "/usr/b, /usr/a and 3 more" in shown
    assert "1.5 x the time" in shown and "50% left" in shown


def test_what_was_predicted_and_what_it_took(run: Run, application: Any) -> None:
    application.store.history.return_value = [
        {**records.plan().summary(), "time": 1e9, "event": "launch",
         "measured": {"assembly_seconds": 5.0}}]
    [found] = json.loads(run("plan", "--history", "--limit", "7", "-f", "json").out)["history"]
    assert (found["predicted"], found["measured"], found["ratio"]) == (2.5, 5.0, 2.0)
    application.store.history.assert_called_with("launch", limit=7)
    assert "lamp+apache+php" in run("plan", "--history").out
    for words in (("lamp", "--history"), ("--limit", "3", "lamp"), ("--top", "3", "lamp"), ()):
        assert run("plan", *words).status == 2


def test_weights_are_shown(run: Run, application: Any) -> None:
    application.images.plans.weighing.return_value = Weighing(Rates(), 4.0, (Quantity(
        name="prepare_seconds", unit="s", configured=4.0, value=4.0),))
    [found] = json.loads(run("weights", "show", "--weights", "adaptive", "-f", "json").out)
    assert (found["name"], found["configured"], found["learnt"]) == ("prepare_seconds", 4.0, None)
    application.images.plans.weighing.assert_called_with("adaptive")


def assembled(application: Any, tmp_path: Path, plan: Any = None) -> Assembled:
    done = Assembled(image=records.image("lamp+apache", "a"), disk=records.digest("d"),
                     facts={"assembly_seconds": 12.5, "injected_bytes": 4096.0})
    application.images.assembled.return_value = contextlib.nullcontext(
        (plan or records.plan(), done))
    return done


def test_assemble_publishes_without_a_file(run: Run, application: Any, tmp_path: Path) -> None:
    assembled(application, tmp_path)
    found = json.loads(run("assemble", "lamp", "--part", "apache", "-f", "json").out)
    assert found["assembly"] == 12.5
    assert found["injected"] == 2 << 20
    assert found["image_id"] == "aaaaaaaa-0000"
    assert found["measured"] == {"assembly_seconds": 12.5, "injected_bytes": 4096.0}
    assert "output" not in found
    application.images.assembled.assert_called_once_with(
        Request(composite="lamp", parts=("apache",)), publish=True)


@pytest.mark.parametrize("words", [
    ("--publish", "never"), ("--overlay",), ("-o", "x", "--overlay", "--disk-format", "raw"),
    ("-o", "x", "--overlay", "--publish", "never"), ("--background", "-o", "x"),
    ("--background", "--publish", "never", "-o", "x")])
def test_assemble_refuses_what_makes_no_sense(words: tuple[str, ...], run: Run,
                                              application: Any) -> None:
    assert run("assemble", "lamp", *words).status == 2
    application.images.assembled.assert_not_called()


def test_assemble_in_the_background(run: Run, application: Any, tmp_path: Path) -> None:
    """What is wrong is told at once; what is there already is shown as ever."""
    words = ("assemble", "lamp", "--part", "apache", "--background", "-f", "json")
    request = Request(composite="lamp", parts=("apache",))
    plan = application.images.plan.return_value = records.plan()
    application.assemble_later.return_value = 4711, tmp_path / "its.log"
    found = json.loads(run(*words).out)
    assert (found["pid"], found["log"]) == (4711, str(tmp_path / "its.log"))
    application.assemble_later.assert_called_once_with(request, plan.recipe)
    application.images.plan.side_effect = exceptions.UnknownPart(
        part="apache", composite="lamp", parts="php")
    assert run(*words).status == exceptions.UnknownPart.exit_code
    application.assemble_later.assert_called_once()
    application.images.assembled.assert_not_called()
    application.images.plan.side_effect = None
    application.images.plan.return_value = msgspec.structs.replace(
        plan, estimate=msgspec.structs.replace(plan.estimate, match="exact"))
    assembled(application, tmp_path)
    assert json.loads(run(*words).out)["image_id"] == "aaaaaaaa-0000"
    application.assemble_later.assert_called_once()


def test_assemble_looks_at_its_file_first(run: Run, application: Any, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    assert run("assemble", "lamp", "-o", tmp_path / "out").status == 11
    application.images.assembled.assert_not_called()


def test_a_file_that_appears_meanwhile_is_not_overwritten(run: Run, application: Any,
                                                          tmp_path: Path) -> None:
    def assemble(*_: Any, **__: Any) -> Any:
        (tmp_path / "out").write_text("mine")
        return application.images.assembled.return_value

    assembled(application, tmp_path)
    application.images.assembled.side_effect = assemble
    assert run("assemble", "lamp", "-o", tmp_path / "out").status == 11
    assert (tmp_path / "out").read_text() == "mine"


# -- launch, servers -------------------------------------------------------------------------

def launched(wish: Wish) -> Launched:
    servers = tuple(records.server(f"{wish.name or 'web'}-{n}") for n in range(wish.count))
    return Launched(servers=servers, plan=records.plan(wish.request),
                    measured={"assembly_seconds": 0.0, "answer_seconds": 30.0})


def test_a_wish_is_read(run: Run, application: Any) -> None:
    application.servers.launch.side_effect = launched
    found = json.loads(run(
        "launch", "lamp", "--part", "apache", "--name", "web", "--count", "2", "--publish",
        "never", "--memory", "512", "--cpus", "1", "--port", "22", "--port", "22", "--wait", "80",
        "--path", "/x", "--timeout", "9", "-f", "json").out)
    application.servers.launch.assert_called_once_with(Wish(
        request=Request(composite="lamp", parts=("apache",)), name="web", count=2,
        publish="never", memory=512, cpus=1, ports=(22,), wait=80, path="/x", timeout=9.0))
    assert [s["name"] for s in found] == ["web-0", "web-1"]
    assert found[0]["ports"] == {"22": 40022, "80": 40080}
    assert found[0]["answered"] == 30.0
    assert found[0]["request"] == ["apache"]
    assert found[0]["console"] == "/store/servers/00ff00ff00ff/console.log"


def test_servers_that_lay_their_parts_publish_nothing(run: Run, application: Any) -> None:
    laying = Layout(id="0" * 12, parts=("apache",), size=200, done=90)

    def streamed(wish: Wish) -> Launched:
        return msgspec.structs.replace(launched(wish), servers=(
            records.server("web", layout=laying),))

    application.store.part.side_effect = None
    application.store.part.return_value = records.PAGE
    application.servers.launch.side_effect = streamed
    done = run("launch", "lamp", "--part", "apache", "--deliver", "stream", "--wait-complete",
               "--fileset", "page", "--on-conflict", "/a b=keep", "-f", "json")
    [wish] = application.servers.launch.call_args.args
    assert (wish.deliver, wish.complete) == ("stream", True)
    assert json.loads(done.out)[0]["deliver"] == "stream"
    assert "splitimage server wait web" in done.err
    assert ("for later launches: splitimage assemble lamp --background --part apache --fileset "
            in done.err)
    assert "--on-conflict '/a b=keep'" in done.err
    application.servers.launch.side_effect = launched
    assert run("launch", "lamp", "--deliver", "auto").err == ""


@pytest.mark.parametrize("words", [
    (), ("lamp", "--publish", "booted"), ("lamp", "--deliver", "carry"),
    ("lamp", "--publish", "booted", "--wait", "80", "--deliver", "stream"),
    ("lamp", "--batch", "x"), ("--batch", "x", "--part", "a"), ("--batch", "x", "--count", "2"),
    ("lamp", "--path", "/"), ("lamp", "--wait", "22", "--path", "/"),
    ("lamp", "--wait", "80", "--path", "x"), ("lamp", "--name", "../x"), ("lamp", "--count", "0"),
    ("lamp", "--port", "70000")])
def test_launch_refuses_what_makes_no_sense(words: tuple[str, ...], run: Run,
                                            application: Any) -> None:
    assert run("launch", *words).status == 2
    application.servers.launch.assert_not_called()


@pytest.fixture
def batch(tmp_path: Path) -> Callable[[Any], Path]:
    def write(entries: Any) -> Path:
        (tmp_path / "batch.json").write_text(json.dumps(entries))
        return tmp_path / "batch.json"
    return write


def test_a_batch_is_launched(run: Run, application: Any, batch: Callable[[Any], Path]) -> None:
    application.batches.launch.side_effect = lambda wishes: [
        Outcome(launched=launched(wish)) for wish in wishes]
    file = batch([{"composite": "lamp", "parts": ["apache"], "name": "one", "memory": 256},
                  {"composite": "wiki", "on_conflict": {"/a": "keep"}, "wait": 80,
                   "deliver": "stream", "wait_complete": True}])
    done = run("launch", "--batch", file, "--memory", "512", "--port", "22")
    assert done.status == 0
    [[one, two]] = application.batches.launch.call_args.args
    assert (one.request.composite, one.name, one.memory, one.ports) == ("lamp", "one", 256, (22,))
    assert (two.request.composite, two.memory, two.wait) == ("wiki", 512, 80)
    assert (one.deliver, one.complete) == ("inject", False)
    assert (two.deliver, two.complete) == ("stream", True)
    assert two.request.answers[0].path == b"a"
    assert "one-0" in done.out


def test_a_batch_that_fails_tells_what_runs_and_why_not_the_rest(
        run: Run, application: Any, batch: Callable[[Any], Path]) -> None:
    application.batches.launch.side_effect = lambda wishes: [
        Outcome(error=exceptions.NoSpaceInImage(
            mountpoint="/", needed=2, available=1, unit="bytes"))
        if wish.request.composite == "wiki" else Outcome(launched=launched(wish))
        for wish in wishes]
    file = batch([{"composite": name} for name in ("lamp", "wiki", "third")])
    done = run("launch", "--batch", file)
    assert done.status == exceptions.NoSpaceInImage.exit_code
    assert done.out.count("web-0") == 2
    assert done.err.count("hint:") == 1


def test_a_batch_is_read_as_a_whole_first(run: Run, application: Any,
                                          batch: Callable[[Any], Path]) -> None:
    file = batch([{"composite": "lamp"}, {"composite": "lamp", "path": "/"}])
    done = run("launch", "--batch", file)
    assert done.status == 15
    assert "$[1]" in done.err
    assert run("launch", "--batch", batch([{"parts": ["a"]}])).status == 15
    application.batches.launch.assert_not_called()


def test_a_dry_run_only_plans(run: Run, application: Any, batch: Callable[[Any], Path]) -> None:
    application.images.plan.return_value = records.plan()
    found = json.loads(run("launch", "lamp", "--dry-run", "-f", "json").out)
    assert found[0]["terms"]["download"]["value"] == 0.5
    assert run("launch", "lamp", "--dry-run", "-c", "cost").status == 0

    application.batches.plan.return_value = [
        BatchStep(requests=(1,), source=None, plan=records.plan(), estimate=records.NEAREST),
        BatchStep(requests=(0, 2), source=1, plan=records.plan(), estimate=records.NEAREST)]
    ways = {"inject": "inject", "auto": "stream"}
    application.images.deliveries.way.side_effect = lambda _, wish: ways[wish]
    file = batch([{"composite": "lamp"}, {"composite": "wiki", "name": "one", "deliver": "auto"},
                  {"composite": "lamp"}])
    one, two = json.loads(run("launch", "--batch", file, "--dry-run", "-f", "json").out)
    assert (one["request"], one["from"], one["cost"]) == ("one", "lamp+apache", 2.5)
    assert (two["request"], two["from"], two["requests"]) == (
        "lamp", "request 2: one", ["0", "2"])
    assert (one["deliver"], two["deliver"]) == ("stream", "inject")
    [wishes] = application.batches.plan.call_args.args
    assert [wish.deliver for wish in wishes] == ["inject", "stream", "inject"]
    application.servers.launch.assert_not_called()
    application.batches.launch.assert_not_called()


def test_servers_are_listed_and_shown(run: Run, application: Any) -> None:
    parts_of(application)
    application.servers.list.return_value = [records.server()]
    application.servers.show.return_value = records.server()
    assert "22->40022, 80->40080" in run("server", "list").out
    assert json.loads(run("server", "show", "web", "-f", "json").out)["composite"] == "lamp"


def test_how_far_a_server_is_with_its_parts(run: Run, application: Any) -> None:
    parts_of(application)
    laying = Layout(id="0" * 12, parts=("apache",), size=200, done=90,
                    failed={"apache2.service": "exit 1"}, kept=("/etc/a",), kept_count=9)
    for layout, shown in ((laying, "running, laying 45 %"),
                          (msgspec.structs.replace(laying, mode="remove"), "removing 45 %"),
                          (msgspec.structs.replace(laying, state="failed"), "layout failed"),
                          (msgspec.structs.replace(laying, state="complete"), "| running |")):
        application.servers.list.return_value = [records.server(layout=layout)]
        assert shown in run("server", "list").out
        [found] = json.loads(run("server", "list", "-f", "json").out)
        assert (found["state"], found["layout"]) == ("running", layout.state)
    application.servers.show.return_value = records.server(layout=laying)
    assert "and 8 more" in run("server", "show", "web").out
    found = json.loads(run("server", "show", "web", "-f", "json").out)
    assert (found["laid_percent"], found["laid"], found["to_lay"]) == (45, 90, 200)
    assert found["failed"] == {"apache2.service": "exit 1"}
    assert found["layout_parts"] == ["apache"]


def test_parts_of_a_server_come_and_go(run: Run, application: Any) -> None:
    servers = application.servers
    servers.show.return_value = servers.add_parts.return_value = records.server()
    servers.remove_parts.return_value = servers.retry.return_value = records.server()
    application.store.part.side_effect = None
    application.store.part.return_value = records.PAGE
    request = Request(composite="c0ffee00-0000", parts=("php",), filesets=(records.PAGE.id,))
    assert run("server", "add-part", "web", "--part", "php", "--fileset", "page").status == 0
    servers.add_parts.assert_called_once_with("00ff00ff00ff", request)
    servers.wait.assert_called_once_with("00ff00ff00ff", timeout=None)
    assert run("server", "remove-part", "web", "--part", "php", "--fileset", "page", "--force",
               "--timeout", "9").status == 0
    servers.remove_parts.assert_called_once_with("00ff00ff00ff", request, force=True)
    servers.wait.assert_called_with("00ff00ff00ff", timeout=9.0)
    servers.wait.reset_mock()
    assert run("server", "retry", "web", "--no-wait").status == 0
    assert run("server", "remove-part", "web", "--part", "php", "--no-wait").status == 0
    servers.wait.assert_not_called()
    assert run("server", "wait", "web", "other").status == 0
    assert [c.args for c in servers.wait.call_args_list] == [("web",), ("other",)]
    for words in ("add-part", "remove-part"):
        assert run("server", words, "web").status == 2
    servers.wait.side_effect = exceptions.ChangedInServer(server="web", paths="/etc/a")
    done = run("server", "remove-part", "web", "--part", "php")
    assert done.status == 62 and "/etc/a" in done.err and "--force" in done.err


def test_servers_start_stop_and_go(run: Run, application: Any) -> None:
    assert run("server", "start", "a", "b").status == 0
    assert run("server", "stop", "a", "--timeout", "0").status == 0
    assert run("server", "delete", "a").status == 0
    assert [call.args for call in application.servers.start.call_args_list] == [("a",), ("b",)]
    application.servers.stop.assert_called_once_with("a", timeout=0.0)
    application.servers.delete.assert_called_once_with("a")


@pytest.mark.parametrize(("words", "shown"), [
    ((), "one\ntwo\nlogin: \n"), (("-n", "2"), "two\nlogin: \n"), (("-n", "1"), "login: \n"),
    (("-n", "9"), "one\ntwo\nlogin: \n"), (("-n", "0"), "")])
def test_a_console_is_printed(words: tuple[str, ...], shown: str, run: Run, application: Any,
                              tmp_path: Path) -> None:
    (tmp_path / "console").write_bytes(b"\x1b[2Jone\r\ntwo\r\nlogin: ")
    application.servers.console.return_value = tmp_path / "console"
    assert run("server", "console", "web", *words).out == shown


@pytest.mark.parametrize(("words", "shown"), [(("-n", "2"), "two\nthree\n"),
                                              (("-n", "1"), "three\n")])
def test_whole_lines_of_a_console_are_counted(words: tuple[str, ...], shown: str, run: Run,
                                              application: Any, tmp_path: Path) -> None:
    (tmp_path / "console").write_bytes(b"one\ntwo\nthree\n")
    application.servers.console.return_value = tmp_path / "console"
    assert run("server", "console", "web", *words).out == shown


def test_a_console_is_followed_until_the_server_ends(
        run: Run, application: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from splitimage_driver.cli.server import console

    monkeypatch.setattr(console, "_PAUSE", 0.0)
    monkeypatch.setattr(console, "_ALIVE", 0.0)
    path = tmp_path / "console"
    path.write_bytes(b"one\n")
    states = iter(["running", "running", "stopped"])

    def show(_name: str) -> Any:
        with path.open("ab") as log:
            log.write(b"more\n")
        return records.server(state=next(states))

    application.servers.console.return_value = path
    application.servers.show.side_effect = show
    assert run("server", "console", "web", "--follow").out == "one\nmore\nmore\n"


def test_a_server_without_a_console_yet_has_nothing_to_say(run: Run, application: Any,
                                                           tmp_path: Path) -> None:
    application.servers.console.return_value = tmp_path / "absent"
    assert run("server", "console", "web") == Done(0, "", "")


# -- queue, store, doctor ----------------------------------------------------------------------

def test_the_queue_is_listed_and_left(run: Run, application: Any) -> None:
    need = Need(owner="alpha", composite="lamp", parts=("apache",), filesets=("ab12",),
                kin="k", seconds=20.0, source="lamp", room=1 << 20)
    application.store.queue.return_value = [
        QueueItem(id="ab", subject="lamp+apache", state="waiting", pid=7, since=1e9, need=need,
                  source="lamp+php", left=12.5),
        QueueItem(id="cd", subject="import 1", state="waiting", pid=8, since=1e9)]
    item, other = json.loads(run("queue", "list", "-f", "json").out)
    assert item == {"id": "ab", "subject": "lamp+apache", "state": "waiting", "pid": 7,
                    "since": 1e9, "owner": "alpha", "from": "lamp+php", "left": 12.5,
                    "parts": ["apache"], "filesets": ["ab12"], "cost": 20.0, "scratch": 1 << 20}
    assert {name for name, value in other.items() if value is not None} == {
        "id", "subject", "state", "pid", "since"}
    application.store.queue.assert_called_once_with(forecast=True)
    table = run("queue", "list").out
    assert "12.5 s" in table and "lamp+php" in table and "1.0 MiB" not in table
    assert "1.0 MiB" in run("queue", "list", "--long").out
    assert run("queue", "cancel", "ab").status == 0
    application.store.cancel.assert_called_once_with("ab")


@pytest.mark.parametrize(("kinds", "status"), [
    ((), 0), (("leftover", "unreferenced"), 0), (("leftover", "damaged"), 25), (("missing",), 25)])
def test_a_check_ends_with_its_verdict(kinds: tuple[str, ...], status: int, run: Run,
                                       application: Any) -> None:
    application.store.check.return_value = iter(
        [Finding(kind=kind, subject="objects/x", detail="it is so") for kind in kinds])
    done = run("store", "check", "--repair", "-f", "json")
    assert done.status == status
    assert [f["kind"] for f in json.loads(done.out)] == list(kinds)
    application.store.check.assert_called_once_with(repair=True)


def test_the_doctor_asks_the_cloud(run: Run, application: Any,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitimage_driver.doctor.checks", lambda *_: [])
    application.in_cloud = True
    application.store.greet.side_effect = ["project x",
                                           exceptions.CloudUnreachable(where="it", reason="no")]
    [good] = json.loads(run("doctor", "-f", "json").out)
    assert (good["check"], good["state"], good["found"]) == ("cloud", "ok", "project x")
    done = run("doctor", "-f", "json")
    assert done.status == 1
    assert json.loads(done.out)[0]["found"] == "it does not answer: no"


@pytest.mark.parametrize(("ok", "state", "status"), [
    (True, "ok", 0), (None, "warning", 0), (False, "FAILED", 1)])
def test_the_doctor_says_what_to_do(ok: bool | None, state: str, status: int, run: Run,
                                    application: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def checks(conf: Any, path: Path) -> Any:
        asked.append((conf, path))
        yield Check(name="it", ok=ok, detail="as it is", mend="do this")

    monkeypatch.setattr("splitimage_driver.doctor.checks", checks)
    done = run("doctor", "-f", "json")
    assert done.status == status
    assert json.loads(done.out) == [{"check": "it", "state": state, "found": "as it is",
                                     "what_to_do": "do this"}]
    assert asked == [(application.conf, application.path)]


# -- formats ------------------------------------------------------------------------------------

def test_no_format_but_json_lets_control_characters_through(run: Run, application: Any) -> None:
    parts_of(application)
    application.servers.list.return_value = [
        msgspec.structs.replace(records.server(), name="\x1b[2Jweb")]
    for form in ("table", "value", "csv", "yaml"):
        assert "\x1b" not in run("server", "list", "-f", form).out
    assert json.loads(run("server", "list", "-f", "json").out)[0]["name"] == "\x1b[2Jweb"


def test_an_empty_list_is_nothing(run: Run) -> None:
    for form in ("table", "value"):
        assert run("server", "list", "-f", form) == Done(0, "", "")
    assert json.loads(run("image", "list", "-f", "json").out) == []

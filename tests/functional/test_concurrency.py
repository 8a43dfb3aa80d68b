"""Several commands on one store at the same time."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.model.plan import Plan, Request
from splitimage_driver.service import Assembled
from tests.functional import bootgold
from tests.functional.dying import Child, opened, run, state, until


@pytest.mark.must_show("main-job", 6)
def test_the_same_new_combination_is_assembled_once(boot_store: Path) -> None:
    parts = ("mysql", "wiki")
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(Child(boot_store, *words)) for words in (
            bootgold.launch(*parts, name="one"), bootgold.launch(*parts, name="two"),
            bootgold.assemble(*parts), bootgold.assemble(*parts))]
        for child in children:
            assert child.success()
    with opened(boot_store) as application:
        store = application.store
        (image,) = store.images()
        assert len(store.history("assembly")) == 1
        servers = application.servers.list()
        assert sorted(server.name for server in servers) == ["one", "two"]
        for server in servers:
            assert (server.image, server.disk) == (image.id, image.disk)
            assert bootgold.serves(application, server) == parts
        assert list(store.check()) == [] and store.queue() == []


@pytest.mark.must_show("main-job", 6)
def test_the_queue_in_order_of_arrival(boot_store: Path) -> None:
    """One waits for another's appliance; one is killed while it runs, one
    cancelled while it waits."""
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(opened(boot_store)).store
        first = stack.enter_context(Child(boot_store, *bootgold.assemble("apache"), step=True))
        first.reach("appliance begins")
        waiting = {}
        for name in ("mysql", "php", "mail"):
            waiting[name] = stack.enter_context(Child(boot_store, *bootgold.assemble(name)))
            until(lambda name=name: any(  # type: ignore[misc]
                item.subject == f"mini+{name}" for item in store.queue()))
        listed = run(boot_store, "queue", "list", "-f", "json")
        rows = [{key.lower(): value for key, value in row.items()} for row in listed]
        assert [(row["subject"], row["state"]) for row in rows] == [
            ("mini+apache", "running"), ("mini+mysql", "waiting"), ("mini+php", "waiting"),
            ("mini+mail", "waiting")]

        run(boot_store, "queue", "cancel", store.queue()[2].id)
        assert waiting["php"].wait() == exceptions.Cancelled.exit_code
        assert "mini+php was cancelled" in waiting["php"].errors()
        with Child(boot_store, "queue", "cancel", store.queue()[0].id) as refused:
            assert refused.wait() == exceptions.InUse.exit_code

        first.kill()
        until(lambda: [(item.subject, item.state) for item in store.queue()] == [
            ("mini+mysql", "running"), ("mini+mail", "waiting")])
        waiting["mysql"].success()
        until(lambda: [(item.subject, item.state) for item in store.queue()] == [
            ("mini+mail", "running")])
        waiting["mail"].kill()
        assert all(child.orphans() == [] for child in (first, *waiting.values()))
        assert store.queue() == []
        assert [image.name for image in store.images()] == ["mini+mysql"]
    found = state(boot_store)
    assert found.findings == () and found.images == ("mini+mysql",)


@pytest.mark.accept
@pytest.mark.must_show("main-job", 6)
def test_images_are_pruned_under_a_launch(completed_store: Path) -> None:
    """First the one it is made from, then the one that it has just made."""
    parts = (*bootgold.PAIR, "mail")
    with (opened(completed_store) as application,
          Child(completed_store, *bootgold.launch(*parts, name="web"), step=True) as child):
        store = application.store
        (old,) = store.images()
        child.reach("copy begins")
        store.delete_image(old.id)
        assert store.is_local(old.disk)
        child.go()
        child.reach("publish ends")
        (new,) = store.images()
        store.delete_image(new.id)
        child.wait()
        child.success()
        (server,) = application.servers.list()
        assert server.disk == new.disk and store.is_local(new.disk)
        assert not store.is_local(old.disk)
        assert store.images() == []
        (fact,) = store.history("assembly")[:1]
        assert fact["candidate"] == old.id
        assert set(bootgold.serves(application, server)) == set(parts)
        assert list(store.check()) == []
        application.servers.delete("web")
        assert not store.is_local(new.disk)


@pytest.mark.must_show("main-job", 6)
@pytest.mark.parametrize(("parts", "match"), [(bootgold.PAIR, "exact"),
                                              ((*bootgold.PAIR, "mail"), "subset")])
def test_what_is_pruned_between_plan_and_work_is_planned_anew(
        completed_store: Path, monkeypatch: pytest.MonkeyPatch, parts: tuple[str, ...],
        match: str) -> None:
    plans: list[Plan] = []
    with opened(completed_store) as application:
        images = application.images
        plan, carry_out = images.plan, images._carry_out

        def planned(*args: Any, **kwargs: Any) -> Plan:
            plans.append(plan(*args, **kwargs))
            if match == "exact" and len(plans) == 1:
                application.store.delete_image(application.store.images()[0].id)
            return plans[-1]

        def carried_out(plan: Plan, *args: Any, **kwargs: Any) -> Assembled:
            if plan.estimate.match == "base":  # that it would do it is enough
                return Assembled(image=None, disk="", facts={})
            application.store.delete_image(application.store.images()[0].id)
            return carry_out(plan, *args, **kwargs)

        monkeypatch.setattr(images, "plan", planned)
        monkeypatch.setattr(images, "_carry_out", carried_out)
        done, _ = images.assemble(Request(composite=bootgold.NAME, parts=parts))
        assert plans[0].estimate.match == match and done.estimate.match == "base"
        assert application.store.queue() == []


@pytest.mark.accept
@pytest.mark.must_show("main-job", 6)
def test_two_captures_of_one_name(boot_gold: Path, tmp_path: Path) -> None:
    """The second waits for the first, and is refused before its own work."""
    store, words = tmp_path / "store", bootgold.capture(boot_gold)
    with Child(store, *words) as first:
        until(lambda: list((store / "locks").glob("composite_mini*")))
        with Child(store, *words, step=True) as second:
            moments = list(second)
            assert second.wait() == exceptions.AlreadyExists.exit_code
            assert moments and "capture begins" not in moments
        first.success()
    found = state(store)
    assert found.composites == (bootgold.NAME,) and found.findings == ()

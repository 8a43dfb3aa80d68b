"""Nothing of one tenant reaches another's servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.functional.novascene import PARTS, Mini

pytest_plugins = ("tests.functional.cloud", "tests.functional.novacloud",
                  "tests.functional.novascene")
pytestmark = [pytest.mark.accept, pytest.mark.must_show("nova", 7)]


@pytest.fixture
def public(mini: Mini) -> Iterator[Mini]:
    """The composite is everybody's."""
    image: Any = mini.cloud.admin.image
    image.update_image(mini.id, visibility="public")
    assert mini.cloud.until(lambda: mini.command("composite", "reconcile").status == 0)
    yield mini
    mini.clear()
    image.update_image(mini.id, visibility="private")
    mini.command("composite", "reconcile")


def test_a_users_snapshot_is_no_completed_image(mini: Mini) -> None:
    server = mini.boot("mail")
    assert mini.tells(server, 1) == {"mail"}
    made = mini.image_of(server)
    image = mini.snapshot(server)
    try:
        mini.clear()
        mini.cloud.alpha.image.delete_image(made)
        again = mini.boot("mail")
        assert mini.tells(again, 1) == {"mail"}, "from what was put together, not the snapshot"
        assert mini.image_of(again) not in (image.id, made)
        # Even where its owner dresses it up as one.
        alike = {key: value for key, value in mini.cloud.alpha.image.get(
            f"/images/{mini.image_of(again)}").json().items() if key.startswith("splitimage_")}
        mini.clear()
        newer: Any = mini.cloud.alpha.image
        newer.update_image(image.id, **alike)
        third = mini.boot("mail")
        assert mini.image_of(third) != image.id
    finally:
        mini.clear()
        mini.cloud.alpha.image.delete_image(image.id)


def test_file_sets_stay_with_their_project(public: Mini, tmp_path: Path) -> None:
    (tmp_path / "srv/www").mkdir(parents=True)
    (tmp_path / "srv/www/ours").write_text("alpha's own\n")
    name = f"own-{public.name}"
    part = public.command("part", "create", name, "--from", tmp_path, "-f", "json")
    assert part.status == 0, part.err
    first = public.boot("apache", filesets=name)
    assert public.tells(first, 1) == {"apache", "ours"}
    image = public.image_of(first)

    beta: Any = public.cloud.beta.image
    assert beta.get(f"/images/{image}").status_code == 404
    listed = beta.get("/images", params={"os_hidden": "true", "splitimage_role": "completed"})
    assert image not in {each["id"] for each in listed.json()["images"]}
    words = []
    for wanted in (name, "no-such-name-at-all", part.json["id"]):
        server = public.create("apache", filesets=wanted, project="beta")
        with pytest.raises(AssertionError) as error:
            public.cloud.wait(server, project="beta")
        words.append(str(error.value).replace(wanted, "NAME").replace(server.id, "ID"))
    assert len(set(words)) == 1, words
    server = public.boot("apache", project="beta")
    assert public.tells(server, 1, project="beta") == {"apache"}


def test_a_composite_that_is_not_ones_own(mini: Mini) -> None:
    """Nova's API itself knows of none."""
    compute: Any = mini.cloud.beta.compute
    flavor = compute.find_flavor("tiny")
    for image in mini.id, "7a1d4cf0-2f0a-4c6d-9a53-000000000000":
        answer = compute.post("/servers", microversion="2.90", json={"server": {
            "name": "guessed", "imageRef": image, "flavorRef": flavor.id, "networks": "none",
            "metadata": {"splitimage:parts": "apache"}}})
        assert answer.status_code == 400
        assert answer.json()["badRequest"]["message"].startswith("Can not find requested image")


def test_an_administrators_launch_uses_no_other_tenants_image(public: Mini) -> None:
    server = public.boot(*PARTS)
    assert public.tells(server, 1) == set(PARTS)
    own = public.boot(*PARTS, project="admin")
    assert public.tells(own, 1, project="admin") == set(PARTS)
    assert public.image_of(own) != public.image_of(server)
    shown: Any = public.cloud.admin.image.get(f"/images/{public.image_of(own)}").json()
    assert shown["owner"] == public.cloud.admin.current_project_id
    assert shown["visibility"] == "private"


def test_an_administrator_makes_nothing_for_another_projects_server(mini: Mini) -> None:
    server = mini.boot("redis")
    assert mini.tells(server, 1) == {"redis"}
    before = mini.image_of(server)
    mini.cloud.act(server, "rebuild", {
        "imageRef": mini.id, "metadata": {"splitimage:parts": "wiki"}}, project="admin")
    with pytest.raises(AssertionError, match="another project's"):
        mini.cloud.wait(server)
    assert mini.image_of(server) == before
    mini.forget()
    mini.reboot(server)
    assert mini.tells(server, 2) == {"redis"}

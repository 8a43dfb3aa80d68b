"""How much hosts hold of what a server needs."""

from __future__ import annotations

import msgspec
import pytest

from splitimage_driver.nova import holdings, matching
from splitimage_driver.nova.holdings import (
    EVERYBODY,
    HeldComposite,
    HeldFileset,
    HeldImage,
    HeldPart,
    Holdings,
    mark,
)
from splitimage_driver.nova.matching import Need, weigh
from splitimage_driver.nova.request import Wanted

LAMP = "lamp's id"
BASE, APACHE, APR, PHP = 400, 30, 5, 20


def composite(*here: str, boots: bool = False, defaults: tuple[int, ...] = ()) -> HeldComposite:
    """lamp; apache requires apr."""
    return HeldComposite(mark(LAMP), BASE, "base" in here, boots, (
        HeldPart("apache", APACHE, "apache" in here, (1,)), HeldPart("apr", APR, "apr" in here),
        HeldPart("php", PHP, "php" in here)), defaults)


def image(*parts: int, project: str = "alpha", name: str = "made", here: bool = True,
          boots: bool = True, filesets: tuple[str, ...] = ()) -> HeldImage:
    return HeldImage(mark(name), project and mark(project), mark(LAMP), parts, filesets, 444,
                     here, boots)


def need(*parts: str, project: str = "alpha", filesets: tuple[str, ...] = (),
         own: str = "") -> Need:
    return Need(image=LAMP, project=project, wanted=Wanted(parts, filesets), own=own)


NOTHING = Holdings()


def test_what_is_here_of_base_and_parts_counts() -> None:
    hosts = [NOTHING, Holdings((composite("base"),)), Holdings((composite("php", "apr"),)),
             Holdings((composite("base", "apache", "php"),))]
    assert weigh(need("apache"), hosts) == [0, BASE, APR, BASE + APACHE]
    assert weigh(need("php"), hosts) == [0, BASE, PHP, BASE + PHP]


def test_another_composite_counts_nothing() -> None:
    hosts = [Holdings((composite("base", "php"),)), NOTHING]
    other = msgspec.structs.replace(need("php"), image="other")
    assert weigh(other, hosts) == [0, 0]
    assert matching.concerns(LAMP, hosts) and not matching.concerns("other", hosts)


def test_the_completed_image_is_all_of_it_and_elsewhere_all_of_it_is_fetched() -> None:
    hosts = [Holdings((composite(),), (image(0, 1),)), Holdings((composite("base", "apache"),)),
             NOTHING]
    assert weigh(need("apache"), hosts) == [444, 0, 0]
    assert weigh(need("apache", "apr"), hosts) == [444, 0, 0]
    assert weigh(need("apache", "php"), hosts) == [BASE + APACHE + APR, BASE + APACHE, 0]


def test_a_completed_image_counts_for_its_project_only() -> None:
    hosts = [Holdings((composite(),), (image(2),)), Holdings((composite(),))]
    assert weigh(need("php"), hosts) == [444, 0]
    assert weigh(need("php", project="beta"), hosts) == [0, 0]
    assert weigh(need("apache", "php", project="beta"), hosts) == [0, 0]
    public = [Holdings((composite(),), (image(2, project=EVERYBODY),)), NOTHING]
    assert weigh(need("php", project="beta"), public) == [444, 0]


def test_an_image_that_is_like_it_is_what_it_can_be_made_from() -> None:
    hosts = [Holdings((composite("php"),), (image(0, 1),)),
             Holdings((composite("php"),), (image(0, 1, here=False),)),
             Holdings((composite("base", "php"),))]
    assert weigh(need("apache", "php"), hosts) == [
        BASE + APACHE + APR + PHP, PHP, BASE + PHP]


def test_what_nova_cannot_start_from_is_fetched_by_it() -> None:
    hosts = [Holdings((composite(),), (image(2, boots=False),)),
             Holdings((composite(),), (image(2, name="x", here=False),))]
    assert weigh(need("php"), hosts) == [0, 444]


def test_a_server_without_parts_starts_from_the_base() -> None:
    hosts = [Holdings((composite("base"),)), Holdings((composite(boots=True),)), NOTHING]
    assert weigh(need(), hosts) == [0, BASE, 0]


def test_who_says_nothing_gets_what_the_image_says() -> None:
    hosts = [Holdings((composite("base", "php", defaults=(2,)),)),
             Holdings((composite("php", boots=True),))]
    nobody = Need(image=LAMP, project="alpha")
    assert weigh(nobody, hosts) == [0, BASE], "one of them knows of no defaults"
    assert weigh(nobody, hosts[:1]) == [BASE + PHP]


def test_a_part_that_a_host_does_not_know_of() -> None:
    """The composite got it later."""
    hosts = [Holdings((composite("base"),)), Holdings((HeldComposite(
        mark(LAMP), BASE, True, False, (HeldPart("nginx", 7, True),)),))]
    assert weigh(need("nginx"), hosts) == [0, BASE + 7]


def test_file_sets_by_name_or_digest_and_of_their_project_only() -> None:
    site = HeldFileset(mark("alpha", "d1"), mark("alpha", "site"), 9)
    made = image(2, filesets=(site.mark,))
    hosts = [Holdings((composite(),), (made,)), Holdings((composite(),), (), (site,)), NOTHING]
    for word in ("site", "d1"):
        assert weigh(need("php", filesets=(word,)), hosts) == [444, 0, 0]
        assert weigh(need("php", filesets=(word,)), hosts[1:]) == [9, 0]
        assert weigh(need("php", filesets=(word,), project="beta"), hosts) == [0, 0, 0]
    assert weigh(need("php"), hosts) == [BASE + PHP, 0, 0]
    assert weigh(need("php", filesets=("other",)), hosts) == [BASE + PHP, 0, 0]


def test_a_server_that_moves_needs_its_own_image_and_nothing_else() -> None:
    hosts = [Holdings((composite("base", "php"),)), Holdings((composite(),), (image(2),)),
             Holdings((composite(),), (image(2, name="other"),))]
    assert weigh(need("php", own="made"), hosts) == [0, 444, 0]
    assert weigh(need("php", own="gone"), hosts) == [0, 0, 0]


def test_a_completed_image_that_is_asked_for_by_its_id() -> None:
    hosts = [NOTHING, Holdings((composite(),), (image(2),))]
    asked = Need(image="made", project="alpha")
    assert weigh(asked, hosts) == [0, 444]
    assert weigh(msgspec.structs.replace(asked, project="beta"), hosts) == [0, 0]
    assert matching.concerns("made", hosts)


def test_what_a_host_told_and_cannot_be_read_is_nothing(
        caplog: pytest.LogCaptureFixture) -> None:
    assert matching.read("2:of another release") == NOTHING
    assert "left aside" in caplog.text
    told = Holdings((composite("base"),))
    assert matching.read(holdings.pack(told)) == told

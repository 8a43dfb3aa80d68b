"""Which of many completed images are looked at file by file.

Comparing two trees takes milliseconds, and an image's tree may have to be
fetched first. Where a composite has more images than that is worth, they are
ranked by their parts: the same equation over the files and bytes of whole
parts. What a rule merges or a condition brings is not seen that way, so the
best of the list is not always the best of all; an exact match is never missed,
it is found by its recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from splitimage_driver.model.candidate import Image
from splitimage_driver.model.part import Part
from splitimage_driver.planning.cost import Amounts, Cost, Rates, total
from splitimage_driver.planning.difference import settled


def nearest(images: Iterable[Image], wanted: Mapping[str, Part], known: Mapping[str, Part], *,
            cost: Cost, rates: Rates, limit: int,
            fetched: Callable[[Image], int] = lambda image: 0) -> list[Image]:
    """At most ``limit`` images, the nearest first; ties go to the one with fewer
    parts that are not known, then to the lower id.

    :param wanted: parts of the request by name, file sets by id
    :param known: likewise, all whose size is known; of what else an image has
        only the number counts
    :param fetched: bytes of an image's disk that are not on this host
    """
    def distance(image: Image) -> tuple[float, int, str]:
        has = {*image.parts, *image.filesets}
        lack = [part for name, part in wanted.items() if name not in has]
        excess = has - wanted.keys()
        much = [known[name] for name in excess & known.keys()]
        amounts = Amounts(missing=sum(part.files for part in lack),
                          missing_bytes=sum(part.size for part in lack),
                          excess=sum(part.files for part in much),
                          excess_bytes=sum(part.size for part in much))
        fetch = fetched(image) / rates.bandwidth if cost.unit == "s" else 0.0
        return (settled(total(cost(amounts, rates)) + fetch), len(excess - known.keys()),
                image.id)

    return sorted(images, key=distance)[:limit]

"""Which parts a path or a row belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from splitimage_driver.merge import registry
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.paths import Resolver
from splitimage_driver.model.plan import Target
from splitimage_driver.planning import target
from splitimage_driver.planning.target import Claim, Laid

Names = frozenset[str]
NOBODY: Names = frozenset()
#: Where software keeps what it notes about other software: that two parts
#: meet there does not mean that one needs the other.
_RECORDS = (b"var/lib/dpkg/", b"var/lib/apt/", b"var/lib/ucf/", b"var/cache/", b"etc/alternatives/")


class Attribution:
    """Of a request's paths.

    A path belongs to every part that says something about it, a change that
    is made only where several parts meet to all of these.

    :param base: of the composite
    :param laid: all parts of the request, and of what was there before
    :param trees: the trees of both, for what follows from merged files
    """

    def __init__(self, base: Manifest, laid: Sequence[Laid], trees: Iterable[Target]) -> None:
        claims, row_claims = target.collect(base, laid)
        self._paths = {path: _names(found) for path, found in claims.items()}
        self._rows = {(path, key): _names(found) for path, keyed in row_claims.items()
                      for key, found in keyed.items()}
        self.shared = frozenset(row_claims)
        self._meetings = {claim.condition for path, found in claims.items()
                          if path not in row_claims and not path.startswith(_RECORDS)
                          for claim in found if len(claim.condition) > 1}
        place = Resolver(base)
        for tree in trees:
            self._derive(tree, row_claims, place)

    def _derive(self, tree: Target, row_claims: Mapping[bytes, Mapping[bytes, Sequence[Claim]]],
                place: Resolver) -> None:
        for path, keyed in row_claims.items():
            merger, content = registry.merger_for(path), tree.generated.get(path)
            if merger is None or content is None:
                continue
            names = frozenset().union(*(_names(found) for found in keyed.values()))
            for link in (*merger.derived(path, content), *merger.absent(path, content)):
                real = place(link)
                self._paths[real] = self._paths.get(real, NOBODY) | names

    def path(self, path: bytes) -> Names:
        """Nobody: it follows from all of them together."""
        return self._paths.get(path, NOBODY)

    def row(self, path: bytes, key: bytes) -> Names:
        return self._rows.get((path, key), NOBODY)

    @property
    def meetings(self) -> set[Names]:
        """Parts that change each other's files."""
        return self._meetings


def _names(claims: Iterable[Claim]) -> Names:
    return frozenset().union(*(claim.condition for claim in claims))

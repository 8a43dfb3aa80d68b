"""What layers say about a path, and what becomes of it where they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from splitimage_driver.merge import text
from splitimage_driver.model.composite import Answer
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import Row
from splitimage_driver.model.plan import Source

Read = Callable[[Source], bytes]


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What one layer says about one path (or row): an entry, a row, or its
    absence.

    :ivar content: of a file that was made here and comes from no part
    """

    part: str
    condition: frozenset[str]
    fileset: bool = False
    entry: FileEntry | None = None
    source: Source | None = None
    row: Row | None = None
    content: bytes | None = None


def undominated(claims: Sequence[Claim]) -> list[Claim]:
    """Those whose condition is not a proper part of another's."""
    if len(claims) == 1:
        return list(claims)
    return [c for c in claims if not any(c.condition < other.condition for other in claims)]


def unchanged(claim: Claim, before: FileEntry | None) -> bool:
    """The claim repeats what the base has; which other names it has is said
    by what becomes of them."""
    if claim.entry is None:
        return before is None
    return before is not None and claim.entry.same(
        msgspec.structs.replace(before, link=claim.entry.link))


class Decision:
    """Of the claims about one path: the rules first where all agree, then
    answers, then the rules for text.

    An answer puts one claim in the place of those of its parts; the claims of
    other parts are still there, and what was decided meets them by the rules
    like any other change.

    :param originals: the base's versions of what parts change
    :param answers: decisions about conflicts, the tenant's own included
    :param read: content of a small file; None: no text is merged
    """

    def __init__(self, base: Manifest, originals: Mapping[bytes, Source],
                 answers: Sequence[Answer], read: Read | None) -> None:
        self.base, self.originals, self.read = base, originals, read
        self.answers: dict[bytes, list[Answer]] = {}
        for answer in answers:
            self.answers.setdefault(answer.path, []).append(answer)

    def of(self, path: bytes, claims: Sequence[Claim]) -> Claim | None:
        """One claim in the place of all; None: that is a question."""
        if not claims:
            return self._before(path)
        agreed = _agreed(claims)
        if agreed is not None:
            return agreed
        for answer in self.answers.get(path, ()):
            left = self._answered(path, answer, claims)
            if left is not None:
                return self.of(path, left)
        if any(c.fileset for c in claims):
            return None
        if self.base.get(path) is None:
            return self._concatenated(claims)
        return self._three_way(path, claims)

    def unfit(self, path: bytes, claims: Sequence[Claim]) -> str:
        """The answer to this question that decides nothing; "": there is none.
        It is the tenant's where a file set is concerned, and never else."""
        fileset = any(c.fileset for c in claims)
        for answer in self.answers.get(path, ()):
            if fileset != bool(answer.parts) and len(_meant(answer, claims)) > 1:
                return answer.action
        return ""

    # -- answers ----------------------------------------------------------------------

    def _answered(self, path: bytes, answer: Answer,
                  claims: Sequence[Claim]) -> list[Claim] | None:
        """Fewer claims, by an answer; None where it does not fit them."""
        meant = _meant(answer, claims)
        if len(meant) < 2:
            return None
        others = [c for c in claims if c not in meant]
        if answer.action == "keep":
            # A tenant keeps what parts make of it, an administrator the base's.
            return others if answer.parts else [c for c in meant if not c.fileset]
        made = self._made(path, answer, meant)
        return None if made is None else [made, *others]

    def _made(self, path: bytes, answer: Answer, meant: Sequence[Claim]) -> Claim | None:
        if answer.action == "replace":
            mine = [c for c in meant if (answer.part in _parts(c) if answer.part else c.fileset)]
            return _agreed(mine) if mine else None
        if answer.action == "file":
            model = next((c.entry for c in meant if c.entry is not None), None)
            return None if model is None else _generated(meant, model, answer.content)
        if answer.action == "concatenate":
            return self._concatenated(meant)
        return self._three_way(path, meant) if answer.action == "three-way" else None

    def _before(self, path: bytes) -> Claim:
        return Claim(part="", condition=frozenset(), entry=self.base.get(path),
                     source=self.originals.get(path))

    # -- text -------------------------------------------------------------------------

    def _texts(self, claims: Sequence[Claim]) -> list[tuple[str, bytes]] | None:
        texts = []
        for claim in claims:
            content = self._content(claim)
            if content is None or not text.is_text(content):
                return None
            texts.append((claim.part, content))
        return texts

    def _content(self, claim: Claim) -> bytes | None:
        e = claim.entry
        if claim.content is not None or e is None or not e.is_file:
            return claim.content
        if claim.source is None or self.read is None or e.size > text.MAX_BYTES:
            return None
        return self.read(claim.source)

    def _concatenated(self, claims: Sequence[Claim]) -> Claim | None:
        model, texts = _common_metadata(claims), self._texts(claims)
        if model is None or texts is None:
            return None
        return _generated(claims, model, text.concatenate(texts))

    def _three_way(self, path: bytes, claims: Sequence[Claim]) -> Claim | None:
        model, texts = _common_metadata(claims), self._texts(claims)
        original = self.originals.get(path)
        if model is None or texts is None or original is None or self.read is None:
            return None
        ancestor = self.read(original)
        content = texts[0][1]
        for _, other in texts[1:]:
            merged = text.three_way(ancestor, content, other)
            if merged is None:
                return None
            content = merged
        return _generated(claims, model, content)


def _meant(answer: Answer, claims: Sequence[Claim]) -> Sequence[Claim]:
    """The claims that an answer is about. An administrator's is about parts,
    a tenant's about file sets and what they meet."""
    if answer.parts:
        return [c for c in claims if not c.fileset and set(_parts(c)) <= set(answer.parts)]
    return claims if any(c.fileset for c in claims) else ()


def _parts(claim: Claim) -> list[str]:
    """Those that it is of: several where it was made of several claims."""
    return claim.part.split("+")


def _generated(claims: Sequence[Claim], model: FileEntry, content: bytes) -> Claim:
    return Claim(part="+".join(sorted({name for c in claims for name in _parts(c)})),
                 condition=frozenset().union(*(c.condition for c in claims)),
                 entry=model.with_content(content), content=content)


def _agreed(claims: Sequence[Claim]) -> Claim | None:
    """The claim all agree with; times may differ, the newest is taken."""
    first = claims[0]
    if first.entry is None:
        return first if all(c.entry is None for c in claims) else None
    if not all(c.entry is not None and first.entry.same(
            msgspec.structs.replace(c.entry, link=first.entry.link)) for c in claims):
        return None
    return max(claims, key=lambda c: (c.entry.mtime if c.entry else 0, c.part))


def _common_metadata(claims: Sequence[Claim]) -> FileEntry | None:
    """A model for the merged file: all agree but for content and time."""
    found = [c.entry for c in claims if c.entry is not None]
    if len(found) != len(claims) or not all(e.is_file for e in found):
        return None
    first = found[0]
    if any((e.mode, e.uid, e.gid, e.xattrs) != (first.mode, first.uid, first.gid, first.xattrs)
           for e in found):
        return None
    return msgspec.structs.replace(first, mtime=max(e.mtime for e in found), link=b"")

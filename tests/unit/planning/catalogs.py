"""Random catalogues, and costs computed the slow and obvious way."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import msgspec

from splitimage_driver.planning import catalog
from splitimage_driver.planning.cost import Rates
from splitimage_driver.planning.difference import EQUATIONS, Pricing, Stored, Wanted

Document = dict[str, Any]


def documents(rng: random.Random, *, images: int = 40, files: int = 60,
              requests: int = 5) -> tuple[Document, Document]:
    """A catalogue and requests: by files, or by parts with times of their
    own, or both; some images share content, some have none."""
    paths = [f"p{n:02}" for n in range(rng.randint(1, files))]
    size = {(p, d): rng.choice((0, 1, rng.randint(1, 10), rng.randint(1, 10**9)))
            for p in paths for d in "abc"}

    def file(path: str, digest: str) -> Document:
        return {"path": path, "digest": digest, "size": size[path, digest]}

    def tree() -> list[Document]:
        share = rng.choice((0.0, 0.1, 0.5, 0.9))
        return [file(p, rng.choice("aaaabc")) for p in paths if rng.random() < share]

    parts: dict[str, Any] = {}
    for start in range(0, len(paths), 4):
        members = [file(p, "a") for p in paths[start:start + rng.randint(1, 4)]]
        parts[f"part{start}"] = members if rng.random() < 0.5 else {
            "files": members, "inject_seconds": rng.choice((0, rng.uniform(0, 3)))}

    def named() -> list[str]:
        return rng.sample(sorted(parts), rng.randint(0, len(parts)))

    def content() -> Document:
        return {"parts": named()} if rng.random() < 0.4 else {"files": tree()}

    def system() -> str:
        return rng.choice(("debian", "debian", "rocky"))

    stored: list[Document] = []
    for n in range(rng.randint(0, images)):
        image = {"id": f"i{rng.randint(0, 9)}-{n}", "os": system(), **content()}
        if stored and rng.random() < 0.2:
            image = {**rng.choice(stored), "id": image["id"]}
        if rng.random() < 0.2:
            image["fetch_bytes"] = rng.randint(0, 10**9)
        stored.append(image)
    wanted = []
    for n in range(requests):
        request = {"id": f"r{n}", "os": system(), **content()}
        if stored and rng.random() < 0.3:
            request = {**rng.choice(stored), "id": request["id"]}
            request.pop("fetch_bytes", None)
        wanted.append(request)
    return {"images": stored, "parts": parts}, {"requests": wanted}


def rates(rng: random.Random) -> Rates:
    def weight() -> float:
        return rng.choice((0.0, 1.0, rng.uniform(0, 10)))
    return Rates(bandwidth=rng.choice((1e6, rng.uniform(1, 1e9))),
                 inject_rate=rng.choice((1e6, rng.uniform(1, 1e9))),
                 inject_seconds=weight(), remove_seconds=weight(), alpha=weight(),
                 beta=weight(), gamma=weight(), delta=weight())


def resolved(stored: Document, wanted: Document) -> tuple[list[Stored], list[Wanted]]:
    images = catalog.read_catalog(msgspec.json.encode(stored), "catalog")
    requests = catalog.read_requests(msgspec.json.encode(wanted), "requests")
    known = catalog.Library(images.parts, "catalog")
    return (known.images(images.images),
            catalog.Library(requests.parts, "requests", known=known).requests(requests.requests))


def pricing(equation: str, found: Rates, publish: float = 0.0) -> Pricing:
    return Pricing.of(equation, found, publish=publish)


class Slow:
    """The costs of the documents, in fractions, file by file."""

    def __init__(self, stored: Document, equation: str, found: Rates) -> None:
        self.parts = stored["parts"]
        self.equation, self.rates = equation, found

    def tree(self, thing: Document) -> dict[str, Document]:
        files = thing.get("files")
        if files is None:
            files = [f for name in thing["parts"] for f in self.part(name)[0]]
        return {f["path"]: f for f in files}

    def part(self, name: str) -> tuple[list[Document], Any]:
        part = self.parts[name]
        return (part, None) if isinstance(part, list) else (part["files"], part["inject_seconds"])

    def cost(self, image: Document, request: Document) -> tuple[Fraction, int]:
        """The total and the missing bytes."""
        have, want = self.tree(image), self.tree(request)
        missing = {p for p, f in want.items()
                   if p not in have or have[p]["digest"] != f["digest"]}
        excess = {p for p in have if p not in want}
        rate = {name: Fraction(getattr(self.rates, name)) for name in (
            "bandwidth", "inject_rate", "inject_seconds", "remove_seconds",
            "alpha", "beta", "gamma", "delta")}
        s = sum((want[p]["size"] / rate["bandwidth"] for p in missing), Fraction(0))
        i, by_file = Fraction(0), set(missing)
        for name in request.get("parts", ()):
            files, seconds = self.part(name)
            if seconds is not None:
                inside = {f["path"] for f in files}
                by_file -= inside
                i += Fraction(seconds) if inside & missing else 0
        i += sum((rate["inject_seconds"] + want[p]["size"] / rate["inject_rate"]
                  for p in by_file), Fraction(0))
        r = rate["remove_seconds"] * len(excess)
        t = sum((have[p]["size"] / rate["bandwidth"] for p in excess), Fraction(0))
        total = {"download": s, "inject": s + i, "remove": s + i + r, "transport": s + i + r + t,
                 "weighted": (rate["alpha"] * s + rate["beta"] * i + rate["gamma"] * r
                              + rate["delta"] * t)}[self.equation]
        return (total + image.get("fetch_bytes", 0) / rate["bandwidth"],
                sum(want[p]["size"] for p in missing))

    def match(self, image: Document, request: Document) -> str:
        have, want = self.tree(image), self.tree(request)
        missing = any(p not in have or have[p]["digest"] != f["digest"] for p, f in want.items())
        excess = bool(have.keys() - want.keys())
        if not missing and not excess:
            return "exact"
        if not have:
            return "base"
        return {(True, False): "subset", (False, True): "superset"}.get((missing, excess),
                                                                        "partial")

    def best(self, images: list[Document], request: Document) -> tuple[float, set[str]]:
        """The least total, and the images that the rule about ties allows."""
        found = [(self.match(image, request) != "exact", *self.cost(image, request),
                  sum(f["size"] for f in self.tree(image).values()), image["id"])
                 for image in images if image["os"] == request["os"]]
        inexact = min(found)[0]
        least = min(f[1] for f in found if f[0] == inexact)
        near = [f for f in found if f[0] == inexact
                and f[1] <= least * (1 + Fraction(1, 10**12))]
        return float(least), {min(near, key=lambda f: f[2:])[4]}


EQUATION_NAMES = tuple(EQUATIONS)

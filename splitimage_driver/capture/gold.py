"""A gold machine's state as the splitters see it."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Container, Iterable
from pathlib import Path

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.archive.sparse import of_content
from splitimage_driver.archive.tree import Tree
from splitimage_driver.capture.packagedb import base as packagedb
from splitimage_driver.merge import registry
from splitimage_driver.model.entry import SYMLINK, FileEntry, text
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.paths import Resolver

LOG = logging.getLogger(__name__)

#: Bytes of a shared file that a composite may carry.
SHARED_LIMIT = 64 << 20
_SYSUSERS = re.compile(rb"usr/lib/sysusers\.d/[^/]+\.conf\Z")


class GoldState:
    """One state of a gold machine: its tree, manifest and package database.

    :param name: of the step; ``base`` for the first
    :param tree: where contents can be read again
    :param place: the base's resolver: all states use the base's directory
        links, so that a path means the same in each
    :param sparse: files that have holes, where ``tree`` cannot tell
    """

    def __init__(self, name: str, tree: Tree, place: Resolver | None = None,
                 sparse: Container[bytes] = ()) -> None:
        self.name, self.tree = name, tree
        manifest = tree.manifest()
        self.place = place or Resolver(manifest)
        # A step may put a directory of its own in the place of a link; but
        # /bin over a link to /usr/bin is a tar's other name for that.
        self.place = self.place.without({
            e.path for e in manifest if e.is_dir and e.path in self.place.links
            and self.place.links[e.path].strip(b"/") != b"usr/" + e.path})
        #: Given where the tree's own names are not the real places: a root
        #: tar may name /bin/x where the base has /bin -> usr/bin.
        self.mapped: Resolver | None = None
        if any(self.place(e.path) != e.path for e in manifest):
            self.mapped = self.place
            # A directory under a link's name stands for the link.
            links = [FileEntry(e.path, SYMLINK, 0o777, target=self.place.links[e.path])
                     for e in manifest if e.is_dir and e.path in self.place.links]
            manifest = tree.manifest(self.place) | links
        self.manifest: Manifest = self._with_holes(manifest, sparse)
        self._packages: packagedb.PackageDB | None = None
        self._looked = False

    def _with_holes(self, manifest: Manifest, sparse: Container[bytes]) -> Manifest:
        holed = {e.sha256: e for e in manifest if e.path in sparse and not e.sparse}
        if not holed:
            return manifest
        maps = {}
        for path, content in self.tree.contents({e.path for e in holed.values()}, self.mapped):
            maps[manifest.by_path[path].sha256] = of_content(content)
        return manifest | [msgspec.structs.replace(e, sparse=maps[e.sha256])
                           for e in manifest if e.path in sparse and e.sha256 in maps]

    @property
    def packages(self) -> packagedb.PackageDB | None:
        if not self._looked:
            self._packages = packagedb.read(self.manifest, self.read)
            self._looked = True
        return self._packages

    @functools.cached_property
    def shared(self) -> dict[bytes, bytes]:
        """Contents of all files that are merged by rows, read in one pass;
        one that is not what its name promises is a file like any other."""
        found = {}
        for path, content in self.read([
                e.path for e in self.manifest if e.is_file and e.size <= SHARED_LIMIT
                and registry.merger_for(e.path) is not None]).items():
            merger = registry.merger_for(path)
            try:
                if merger is not None:
                    merger.parse(content)
                    found[path] = content
            except exceptions.InvalidInput as error:
                LOG.warning("%s of %s is not merged by rows: %s", text(path), self.name, error)
        return found

    @functools.cached_property
    def declared(self) -> dict[str, bytes]:
        """Accounts that systemd-sysusers makes, by name: the file that says so."""
        found: dict[str, bytes] = {}
        files = [e.path for e in self.manifest if _SYSUSERS.match(e.path)
                 and e.is_file and e.size <= SHARED_LIMIT]
        for path, content in sorted(self.read(files).items()):
            for line in content.decode("utf-8", "replace").splitlines():
                words = line.split()
                if len(words) > 1 and words[0].rstrip("!+-") in ("u", "g"):
                    found.setdefault(words[1].strip("\"'"), path)
        return found

    def read(self, paths: Iterable[bytes]) -> dict[bytes, bytes]:
        return self.tree.read(paths, place=self.mapped)


class Spool:
    """Contents of files by their sha256, in a scratch directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: bytes) -> Path:
        return self.directory / sha256.hex()

    def take(self, state: GoldState, wanted: Iterable[bytes]) -> None:
        """Keep the contents of files (by path) of one state."""
        tree = state.manifest.by_path
        needed = {path for path in wanted if not self.path(tree[path].sha256).exists()}
        if not needed:
            return
        for path, content in state.tree.contents(needed, state.mapped):
            with self.path(tree[path].sha256).open("wb") as out:
                while piece := content.read(1 << 20):
                    out.write(piece)

    def put(self, content: bytes) -> bytes:
        sha = hashlib.sha256(content).digest()
        self.path(sha).write_bytes(content)
        return sha

    def get(self, sha256: bytes) -> bytes:
        return self.path(sha256).read_bytes()

"""The dpkg database of a tree: var/lib/dpkg, and apt's record of who asked."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.capture.packagedb import database, deb822
from splitimage_driver.capture.packagedb.files import Files
from splitimage_driver.model.entry import FileEntry, text

LOG = logging.getLogger(__name__)

DIRECTORY = b"var/lib/dpkg"
STATUS = DIRECTORY + b"/status"
INFO = DIRECTORY + b"/info"
DIVERSIONS = DIRECTORY + b"/diversions"
UPDATES = DIRECTORY + b"/updates"
EXTENDED = b"var/lib/apt/extended_states"

#: The order in which dpkg would run them.
SCRIPTS = (b"config", b"preinst", b"postinst", b"prerm", b"postrm")

#: States in which the package's files are in place.
_PRESENT = frozenset(("installed", "triggers-pending", "triggers-awaited",
                      "half-configured", "unpacked"))
_ABSENT = frozenset(("not-installed", "config-files"))
_STATES = _PRESENT | _ABSENT | {"half-installed"}
_CONFFILE = re.compile(r"\s+(/.*?) (?:[0-9a-f]{32}|newconffile)(?: obsolete| remove-on-upgrade)*\Z")
_LIMIT = 256 << 20

Fields = dict[str, str]


def present(files: Files) -> bool:
    """Whether the tree has a dpkg database with something in it."""
    entry = files.find(STATUS)
    return entry is not None and entry.size > 0


def read(files: Files) -> database.PackageDB:
    """
    :raises InvalidInput: a file of the database is damaged
    :raises Unsupported: a layout of the database that dpkg no longer writes
    """
    info = [entry for entry in files.below(INFO) if entry.is_file]
    wanted: dict[bytes, FileEntry] = {entry.path: entry for entry in info if
                                      _kind(entry) in (b"list", *SCRIPTS)}
    single: dict[bytes, bytes] = {}
    for path in (STATUS, DIVERSIONS, EXTENDED, INFO + b"/format"):
        entry = files.find(path)
        if entry is not None:
            single[path] = entry.path
            wanted[entry.path] = entry
    updates = [entry for entry in files.below(UPDATES)
               if entry.path.rpartition(b"/")[2].isdigit()]
    wanted |= {entry.path: entry for entry in updates}
    found = files.contents(wanted.values(), each=_LIMIT)
    content = {path: found[real] for path, real in single.items()}

    if content.get(INFO + b"/format", b"1").strip() != b"1":
        raise exceptions.Unsupported(what="this dpkg database",
                                     reason="its info/format is not 1")
    rows = _status(content[STATUS], [found[entry.path] for entry in updates])
    automatic = _automatic(content[EXTENDED]) if EXTENDED in content else None
    state: dict[bytes, list[FileEntry]] = {}
    for entry in info:
        state.setdefault(entry.path.rpartition(b"/")[2].rpartition(b".")[0], []).append(entry)

    diverted = _diversions(content.get(DIVERSIONS, b""), files)
    packages: list[database.Package] = []
    own: set[bytes] = set()
    unfinished: dict[str, str] = {}
    for fields in rows:
        name, architecture = fields["package"], fields.get("architecture", "")
        status = fields["status"].split()[2]
        if status not in _ABSENT and status != "installed":
            unfinished[name] = status
            LOG.warning("package %s is not wholly installed: %s", name, status)
        if status not in _PRESENT:
            continue
        mine = [entry for stem in (name, f"{name}:{architecture}")
                for entry in state.get(stem.encode(), ())]
        own.update(entry.path for entry in mine)
        package = _package(fields, mine, found, files, diverted)
        packages.append(package)
    native = _architecture(packages)
    if automatic is None:
        LOG.info("apt's extended_states is not there: packages that nothing depends on "
                 "count as installed by hand")
        packages = list(database.leaves(packages, "dpkg", native))
    else:
        packages = [msgspec.structs.replace(package,
                                            manual=_asked(package, automatic, native))
                    for package in packages]
    db = database.PackageDB(packages, format="dpkg", architecture=native,
                              paths=_shared(files, own), unfinished=unfinished,
                              place=files.place)
    LOG.info("dpkg database: %d packages, %d of them asked for", len(db.packages),
             sum(package.manual for package in db.packages.values()))
    return db


def _kind(entry: FileEntry) -> bytes:
    return entry.path.rpartition(b".")[2]


def _status(data: bytes, updates: Iterable[bytes]) -> list[Fields]:
    """The packages' fields; ``updates`` is dpkg's journal of stanzas that it
    had no time to write into status."""
    rows: dict[tuple[str, str], Fields] = {}
    for where, part, journal in ((text(STATUS), data, False),
                                 *((text(UPDATES), one, True) for one in updates)):
        seen: set[tuple[str, str]] = set()
        for line, fields in deb822.stanzas(part, where):
            at = f"{where} line {line}"
            for name in ("package", "status"):
                if name not in fields:
                    raise exceptions.InvalidInput(what=at, reason=f"no {name.title()} field")
            deb822.package_name(fields["package"], at)
            words = fields["status"].split()
            if len(words) != 3 or words[2] not in _STATES:
                raise exceptions.InvalidInput(
                    what=at, reason=f"{fields['status'][:80]!r} is not a status")
            key = fields["package"], fields.get("architecture", "")
            if key in seen:
                raise exceptions.InvalidInput(what=at,
                                              reason=f"package {key[0]} is there twice")
            seen.add(key)
            if journal and words[2] == "not-installed":
                rows.pop(key, None)
            else:
                rows[key] = fields
    return list(rows.values())


def _package(fields: Fields, mine: list[FileEntry], found: dict[bytes, bytes], files: Files,
             diverted: dict[bytes, tuple[bytes, str]]) -> database.Package:
    name = fields["package"]
    where = f"{text(STATUS)}: package {name}"

    def relation(*names: str) -> tuple[tuple[str, ...], ...]:
        return tuple(clause for one in names
                     for clause in deb822.relation(fields.get(one, ""), where))

    def place(path: bytes) -> bytes:
        real = files.place(path)
        target, diverter = diverted.get(real, (real, name))
        return real if diverter == name else target

    paths: set[bytes] = set()
    scripts = {}
    when = 0
    for entry in mine:
        kind = _kind(entry)
        if kind == b"list":
            when = entry.mtime // 1_000_000_000
            paths.update(place(path) for path in _list(found[entry.path], entry))
        elif kind in SCRIPTS:
            scripts[kind] = found[entry.path]
    size = fields.get("installed-size", "0")
    if not size.isascii() or not size.isdigit() or len(size) > 12:
        raise exceptions.InvalidInput(what=where, reason=f"Installed-Size is {size[:40]!r}")

    def word(field: str) -> str:
        return deb822.word(fields.get(field, ""), where, field.title())

    return database.Package(
        name=name, architecture=word("architecture"), version=word("version"),
        essential=any(fields.get(one) == "yes" for one in ("essential", "protected", "important")),
        priority=word("priority").lower(), section=word("section").rpartition("/")[2],
        source=deb822.package_name((fields.get("source", "").split() or [name])[0], where),
        installed_size=int(size) * 1024, installed=when,
        depends=relation("pre-depends", "depends"), recommends=relation("recommends"),
        provides=tuple(clause[0] for clause in relation("provides")),
        files=tuple(sorted(paths)),
        conffiles=tuple(sorted(place(path)
                               for path in _conffiles(fields.get("conffiles", ""), where))),
        scripts=b"\n".join(scripts[kind] for kind in SCRIPTS if kind in scripts),
        state=tuple(sorted(entry.path for entry in mine)))


def _list(data: bytes, entry: FileEntry) -> Iterable[bytes]:
    for line in data.split(b"\n"):
        if line:
            if not line.startswith(b"/") or b"\0" in line or len(line) > 4096:
                raise exceptions.InvalidInput(what=text(entry.path),
                                              reason="a line is not an absolute path")
            yield line


def _conffiles(value: str, where: str) -> Iterable[bytes]:
    """Of the status' own field: it has the obsolete ones too, which
    info/NAME.conffiles lacks."""
    for line in value.split("\n"):
        if line.strip():
            match = _CONFFILE.match(line)
            if match is None:
                raise exceptions.InvalidInput(what=where, reason="Conffiles has a bad line")
            yield match[1].encode("utf-8", "surrogateescape")


def _diversions(data: bytes, files: Files) -> dict[bytes, tuple[bytes, str]]:
    """Real place to (real place it is diverted to, package whose own file
    stays; ":" where the administrator diverted it for all)."""
    lines = data.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    if len(lines) % 3:
        raise exceptions.InvalidInput(what=text(DIVERSIONS),
                                      reason="its lines are not groups of three")
    found = {}
    for source, target, by in zip(*[iter(lines)] * 3, strict=True):
        if not (source.startswith(b"/") and target.startswith(b"/") and by):
            raise exceptions.InvalidInput(what=text(DIVERSIONS),
                                          reason="a diversion is not two paths and a package")
        found[files.place(source)] = files.place(target), by.decode("utf-8", "surrogateescape")
    return found


def _automatic(data: bytes) -> frozenset[tuple[str, str]]:
    """(name, architecture) of what apt installed as a dependency; the
    architecture is "" in old files."""
    found = set()
    for line, fields in deb822.stanzas(data, text(EXTENDED)):
        if fields.get("auto-installed") == "1":
            name = deb822.package_name(fields.get("package", ""),
                                       f"{text(EXTENDED)} line {line}")
            found.add((name, fields.get("architecture", "")))
    return frozenset(found)


def _asked(package: database.Package, automatic: frozenset[tuple[str, str]], native: str) -> bool:
    """apt notes packages for all architectures under the machine's own."""
    has = native if package.architecture == "all" else package.architecture
    return not {(package.name, has), (package.name, package.architecture),
                (package.name, "")} & automatic


def _architecture(packages: Iterable[database.Package]) -> str:
    """The machine's own: that of dpkg, else the one most packages have."""
    counts: dict[str, int] = {}
    for package in packages:
        if package.name == "dpkg":
            return package.architecture
        if package.architecture != "all":
            counts[package.architecture] = counts.get(package.architecture, 0) + 1
    return max(sorted(counts), key=lambda one: counts[one], default="")


def _shared(files: Files, own: set[bytes]) -> list[bytes]:
    """The database's files that are no package's own. Its subdirectory
    alternatives is a database by itself, one file an alternative."""
    real = files.place.directory(DIRECTORY)
    paths = [entry.path for entry in files.below(DIRECTORY)
             if entry.is_file and entry.path not in own
             and not entry.path.startswith(real + b"/alternatives/")]
    extended = files.find(EXTENDED)
    return paths if extended is None else [*paths, extended.path]

"""A merger's grammar takes files apart as the merger does."""

from __future__ import annotations

import re

import pytest

from splitimage_driver.merge import base, registry
from splitimage_driver.merge.base import Grammar

FILES = {
    b"etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n# note\n+nis\nweb:x:33:33::/srv:/bin/sh\n",
    b"etc/group": b"root:x:0:\nweb:x:33:root\n",
    b"etc/shadow": b"root:*:19000::::::\n",
    b"etc/gshadow": b"root:*::\nweb:!::root\n",
    b"etc/subuid": b"user:100000:65536\nuser:300000:10\n",
    b"etc/shells": b"# shells\n/bin/sh\n/bin/bash\n",
    b"var/lib/dpkg/status": b"Package: a\nStatus: install ok installed\nArchitecture: amd64\n"
                            b"Description: x\n Package: not\n\nPackage: b\nArchitecture: all\n\n",
    b"var/lib/apt/extended_states": b"Package: a\nArchitecture: amd64\nAuto-Installed: 1\n\n",
    b"var/lib/dpkg/statoverride": b"root web 2755 /usr/bin/a b\n",
    b"var/lib/dpkg/diversions": b"/bin/a\n/bin/a.d\npkg\n/bin/b\n/bin/b.d\n:\n",
    b"var/lib/dpkg/triggers/File": b"/usr/share/x pkg\n/usr/lib y/noawait\n",
    b"var/lib/dpkg/triggers/ldconfig": b"libc-bin\n",
    b"var/lib/dpkg/triggers/Unincorp": b"ldconfig libc-bin\n",
    b"var/lib/dpkg/arch": b"amd64\ni386\n",
    b"var/lib/ucf/hashfile": b"0123456789abcdef0123456789abcdef  /etc/a b\n",
    b"var/lib/ucf/registry": b"pkg /etc/a b\n",
    b"var/cache/debconf/config.dat": b"Name: a/b\nTemplate: a/b\nOwners: a\n\nName: c\nX: y\n\n",
}


def records(grammar: Grammar, content: bytes) -> list[bytes]:
    if grammar.records == base.STANZAS:
        return [piece.strip(b"\n") for piece in re.split(rb"\n\n+", content) if piece.strip()]
    lines = content.splitlines()
    if grammar.records == base.TRIPLES:
        return [b"\n".join(lines[n:n + 3]) for n in range(0, len(lines), 3)]
    return lines


@pytest.mark.parametrize("path", FILES, ids=bytes.decode)
def test_records_and_keys(path: bytes) -> None:
    merger = registry.merger_for(path)
    assert merger is not None
    found = []
    for record in records(merger.grammar, FILES[path]):
        match = re.match(merger.grammar.key, record)
        assert match is not None
        found.append((b":".join(group or b"" for group in match.groups()), record))
    assert found == merger.parse(FILES[path])


def test_every_merger_is_tried() -> None:
    """Alternatives are left to their own program."""
    tried = {type(registry.merger_for(path)) for path in FILES}
    assert {type(m) for m in registry.mergers()
            if m.grammar.records != base.ALTERNATIVES} <= tried

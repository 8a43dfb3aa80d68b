"""var/lib/dpkg/status: the packages that dpkg knows."""

from __future__ import annotations

import re

from splitimage_driver.merge.stanzas import PackageStanzas


class DpkgStatus(PackageStanzas):
    pattern = re.compile(rb"var/lib/dpkg/status")
    what = "dpkg status"

    def order(self, key: bytes) -> object:
        # dpkg writes by name, then by architecture, in byte order: its
        # pkg_sorter_by_nonambig_name_arch, where all installed versions of a
        # package with several architectures are "Multi-Arch: same"
        name, _, architecture = key.partition(b":")
        return name, architecture

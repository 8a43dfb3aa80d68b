"""var/lib/apt/extended_states: which packages came as dependencies."""

from __future__ import annotations

import re

from splitimage_driver.merge.stanzas import PackageStanzas


class ExtendedStates(PackageStanzas):
    # apt keeps the order of the stanzas it finds and appends new ones in the
    # order of its cache, so ranks tell the place
    pattern = re.compile(rb"var/lib/apt/extended_states")
    what = "apt extended states"

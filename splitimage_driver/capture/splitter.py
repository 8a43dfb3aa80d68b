"""The contract of a splitter: from a gold machine's states to parts."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence

import msgspec

from splitimage_driver.capture.draft import Draft
from splitimage_driver.capture.gold import GoldState, Spool
from splitimage_driver.capture.identity import Identity
from splitimage_driver.model.manifest import Manifest


class Split(msgspec.Struct, frozen=True):
    """:ivar draft: the parts and their relations
    :ivar base: the base's tree before identity is cleaned
    :ivar generated: contents of files of the base that differ from the gold
        disk's
    """

    draft: Draft
    base: Manifest
    generated: dict[bytes, bytes]


class Splitter(abc.ABC):
    """Found by stevedore in ``splitimage.splitters``."""

    @abc.abstractmethod
    def split(self, states: Sequence[GoldState], software: Mapping[str, Sequence[str]], *,
              rest: str, identity: Identity, spool: Spool) -> Split:
        """:param states: of the gold machine, the disk's first
        :param software: name of each piece: the packages that were named for it
        :param rest: name for the part of what no rule attributes
        :param spool: takes contents that are made here
        """

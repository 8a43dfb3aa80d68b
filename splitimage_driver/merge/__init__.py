"""Merging: shared files row by row, plain text by lines."""

from __future__ import annotations

from splitimage_driver.merge.registry import merger_for, mergers

__all__ = ["merger_for", "mergers"]

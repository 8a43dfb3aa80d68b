from __future__ import annotations

from tests.unit.store.glance.conftest import alpha, beta, glance, no_pauses, stores

__all__ = ["alpha", "beta", "glance", "no_pauses", "stores"]

from __future__ import annotations

import pytest

from tests.imagerecords import Records
from tests.unit.store.glance.fake import FakeGlance


@pytest.fixture
def glance() -> FakeGlance:
    return FakeGlance()


@pytest.fixture
def alpha(glance: FakeGlance) -> Records:
    """What the project alpha stores."""
    return Records(glance.user("alpha"))


@pytest.fixture
def beta(glance: FakeGlance) -> Records:
    return Records(glance.user("beta"))

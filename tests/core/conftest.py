"""A profile to work on; and the tests of core share modules of this folder, whatever pytest's
import mode."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from palate.core.profile import ProfileStore, TasteProfile

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def profile(tmp_path: Path) -> Iterator[TasteProfile]:
    store = ProfileStore(tmp_path / "palate")
    yield store.open("Warm colours")
    store.close()

"""Makes the checkout importable as the package ``palate``, whatever its folder is called."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def import_palate() -> None:
    """After this, ``import palate.core.papa`` and the like find this checkout."""
    if "palate" in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        "palate", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["palate"] = module
    spec.loader.exec_module(module)

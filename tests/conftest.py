"""Makes the checkout importable as ``palate`` for every test."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from launch.package import import_palate

import_palate()

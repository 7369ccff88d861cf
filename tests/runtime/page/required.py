"""Whether a test of the page may be skipped."""

from __future__ import annotations

import os

REQUIRED = os.environ.get("PAGE_TESTS") == "required" and not os.environ.get("STPL_TORCH_FREE")
"""In CI a page that no browser looked at, and a document that no schema held, is a failure."""

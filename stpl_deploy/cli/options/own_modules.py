"""The user's own modules, as the verbs that need them see them."""

from __future__ import annotations

import os
import sys


def import_from_here() -> None:
    """Make a `package.module:Class` that was given by hand importable from the current folder.

    Behind everything installed: a json.py that lies beside the data must not replace Python's.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)

"""`python -m stpl_deploy`."""

import os
import sys

# `python -m` puts the current folder before everything installed: a json.py that lies beside the
# data would be imported in place of Python's.
if not getattr(sys.flags, "safe_path", False):
    sys.path[:] = [entry for entry in sys.path if entry not in ("", os.getcwd())]

from stpl_deploy.cli import main

main()

"""stpl-deploy: from training a spatiotemporal model to a live nowcast on an edge device.

    import stpl_deploy as stpl

    with stpl.load("rain.bundle") as model:
        rain = model.predict("radar/")  # the newest frames of a folder -> xarray.Dataset

Everything here is imported when it is first used.
"""

import os
import sys

# `python -m stpl_deploy` puts the current folder before everything installed: a json.py that lies
# beside the data would be imported in place of Python's.
if sys.argv[:1] == ["-m"] and not getattr(sys.flags, "safe_path", False):
    sys.path[:] = [entry for entry in sys.path if entry not in ("", os.getcwd())]

import importlib
from typing import TYPE_CHECKING, Any

from stpl_core import __version__ as __version__
from stpl_deploy import old_names as _old_names

if TYPE_CHECKING:
    from stpl_core import errors as errors
    from stpl_core import readers as readers
    from stpl_core.bundle import Bundle as Bundle
    from stpl_core.errors import StplError as StplError
    from stpl_deploy.library.backfilling import backfill as backfill
    from stpl_deploy.library.evaluation import evaluate as evaluate
    from stpl_deploy.library.exporting import export as export
    from stpl_deploy.library.frames import open_frames as open_frames
    from stpl_deploy.library.live import LiveNowcasts as LiveNowcasts
    from stpl_deploy.library.model import Model as Model
    from stpl_deploy.library.model import load as load
    from stpl_deploy.library.training import train as train
    from stpl_runtime.nowcast import Nowcast as Nowcast
    from stpl_train.run import Run as Run

_FROM = {
    "Bundle": "stpl_core.bundle:Bundle",
    "LiveNowcasts": "stpl_deploy.library.live:LiveNowcasts",
    "Model": "stpl_deploy.library.model:Model",
    "Nowcast": "stpl_runtime.nowcast:Nowcast",
    "Run": "stpl_train.run:Run",
    "StplError": "stpl_core.errors:StplError",
    "backfill": "stpl_deploy.library.backfilling:backfill",
    "errors": "stpl_core.errors",
    "evaluate": "stpl_deploy.library.evaluation:evaluate",
    "export": "stpl_deploy.library.exporting:export",
    "load": "stpl_deploy.library.model:load",
    "open_frames": "stpl_deploy.library.frames:open_frames",
    "readers": "stpl_core.readers",
    "train": "stpl_deploy.library.training:train",
}
"""Name -> where it lives."""

__all__ = [
    "Bundle",
    "LiveNowcasts",
    "Model",
    "Nowcast",
    "Run",
    "StplError",
    "backfill",
    "errors",
    "evaluate",
    "export",
    "load",
    "open_frames",
    "readers",
    "train",
]

_old_names.install()


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, member = _FROM[name].partition(":")
    found = importlib.import_module(module)
    if member:
        found = getattr(found, member)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_FROM})

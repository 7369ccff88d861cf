"""The library Polygraphy: loaded for one flavour of TensorRT, and silent."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from stpl_core.errors import EnvironmentFault, MissingExtraError

PYTORCH = "PyTorch float64"
"""The runner that the others are compared with."""


def use_tensorrt(rtx: bool) -> None:
    """Let Polygraphy's loaders use TensorRT-RTX or TensorRT: it knows one of them in a process.

    Raises:
        MissingExtraError: Polygraphy is not installed.
        EnvironmentFault: this process has loaded the other one.
    """
    try:
        from polygraphy import config
    except ModuleNotFoundError as error:
        raise MissingExtraError("polygraphy", "polygraphy") from error
    if rtx == config.USE_TENSORRT_RTX:
        return
    if "polygraphy.backend.trt" in sys.modules:
        loaded = "TensorRT-RTX" if config.USE_TENSORRT_RTX else "TensorRT"
        raise EnvironmentFault(
            f"this process has built with {loaded} already",
            expected="one flavour of TensorRT in a process",
            fix="build for the other one in a process of its own, as stpl-deploy export does",
        )
    config.USE_TENSORRT_RTX = rtx  # what POLYGRAPHY_USE_TENSORRT_RTX sets; read at the next import


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Polygraphy's log, which goes to stdout, off; its errors are raised all the same.

    Raises:
        MissingExtraError: Polygraphy is not installed.
    """
    try:
        from polygraphy.logger import G_LOGGER
    except ModuleNotFoundError as error:
        raise MissingExtraError("polygraphy", "polygraphy") from error
    # It divides by what may be 0 or infinite; what comes of that fails its comparison.
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1), np.errstate(all="ignore"):
        yield

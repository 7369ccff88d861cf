"""OpenVINO's Core, of which a process has one."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openvino


@cache
def openvino_core() -> openvino.Core:
    """The Core, made at the first call and kept until the process ends.

    Its CPU plugin gives the thread a stack for signals. Where a Core goes, that stack goes, but the
    thread may still be set to it: after a second Core, or where there was no such stack before
    (OpenVINO 2026.4.1). The next Ctrl-C would then be a segmentation fault.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    import openvino

    return openvino.Core()

"""The NVIDIA GPU of this machine, asked through the driver's own library."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True)
class Gpu:
    """What an engine must find."""

    capability: str
    """Compute capability, such as `8.6`."""
    cuda: tuple[int, int]
    """The latest CUDA version that the driver supports, such as (13, 0)."""


def local_gpu(device: int = 0) -> Gpu | None:
    """The GPU number `device`; None where there is no driver or no such GPU."""
    library = _driver()
    if library is None or library.cuInit(0) != 0:
        return None
    handle, version = ctypes.c_int(), ctypes.c_int()
    major, minor = ctypes.c_int(), ctypes.c_int()
    failed = (
        library.cuDeviceGet(ctypes.byref(handle), device)
        or library.cuDriverGetVersion(ctypes.byref(version))
        or library.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, handle)
        or library.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, handle)
    )
    if failed:
        return None
    cuda = (version.value // 1000, version.value % 1000 // 10)  # 13000 is 13.0
    return Gpu(f"{major.value}.{minor.value}", cuda)


def _driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None

"""A camera at this machine, such as `camera:0` or `camera:/dev/video2`, by FFmpeg's devices.

One that is not there at the start is reported at once; one that is unplugged later is waited for.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from stpl_core.errors import EnvironmentFault
from stpl_runtime.ingest.live_video import LiveVideo
from stpl_runtime.ingest.pictures import Pictures
from stpl_runtime.options import Options
from stpl_runtime.source import SourceSpec

OPTIONS = ("size", "rate", "input_format", "timeout", "resize")
_TIMEOUT_S = 5.0
_FFMPEG = {"size": "video_size", "rate": "framerate", "input_format": "input_format"}
"""Our options that are one of FFmpeg's devices."""
_DEVICES = {"darwin": "avfoundation", "win32": "dshow"}
"""Platform -> FFmpeg's name of the devices; v4l2 on all others."""


def open_source(rest: str, spec: SourceSpec) -> LiveVideo:
    """Open the camera of this number or path.

    Raises:
        EnvironmentFault: it is not there, or may not be read.
        UsageError: an option that does not hold, or a model of other frames.
    """
    word = rest.removeprefix("//") or "0"
    name = f"camera:{word}"
    options = Options("camera", spec.options, OPTIONS)
    pictures = Pictures(spec, options.resize("area"), name)
    system = _DEVICES.get(sys.platform, "v4l2")
    device = f"/dev/video{word}" if system == "v4l2" and word.isdigit() else word
    if system == "v4l2":
        _check_device(name, Path(device))
        _check_opens(name, device)
    given = {ours: options.text(ours) for ours in _FFMPEG}
    ffmpeg = {_FFMPEG[ours]: text for ours, text in given.items() if text}
    timeout_s = options.number("timeout", _TIMEOUT_S, least=0.1)
    return LiveVideo(
        device, name, spec, pictures, container=system, options=ffmpeg, timeout_s=timeout_s
    )


def _check_device(name: str, path: Path) -> None:
    there = sorted(str(other) for other in Path("/dev").glob("video*"))
    if not path.is_char_device():
        raise EnvironmentFault(
            f"{name}: no camera at {path}",
            expected=f"one of {', '.join(there)}" if there else "a camera, /dev/video0 or another",
            fix=f"camera:{there[0].removeprefix('/dev/video')}" if there else "plug in a camera",
        )
    if not os.access(path, os.R_OK | os.W_OK):
        raise EnvironmentFault(
            f"{name}: {path} may not be read by this user",
            expected="the right to it",
            fix="sudo usermod -aG video $USER, then log in again",
        )


def _check_opens(name: str, device: str) -> None:
    """Open it once, so that what is no camera, or is in use, is reported at once."""
    import av

    try:
        av.open(device, format="v4l2", timeout=_TIMEOUT_S).close()
    except av.error.FFmpegError as error:
        raise EnvironmentFault(
            f"{name}: {device} does not open: {error.strerror}",
            expected="a camera that no other program uses",
            fix=f"v4l2-ctl --device {device} --all says what it is",
        ) from error

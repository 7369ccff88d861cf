"""Network cameras and streams: rtsp://, rtsps://, rtmp://, tcp:// and udp:// (MPEG-TS), by PyAV."""

from __future__ import annotations

from functools import partial
from urllib.parse import urlsplit

from stpl_core.errors import UsageError
from stpl_runtime.ingest.live_video import LiveVideo
from stpl_runtime.ingest.pictures import Pictures
from stpl_runtime.links.reconnect import without_credentials
from stpl_runtime.options import Options
from stpl_runtime.source import SourceSpec

OPTIONS = ("timeout", "transport", "resize")
_TIMEOUT_S = 5.0
_TRANSPORTS = ("tcp", "udp", "udp_multicast", "http")
_QUICK = {"flags": "low_delay", "analyzeduration": "500000"}
"""FFmpeg looks at a stream for five seconds before the first picture unless set otherwise."""


_RTSP = "rtsp,rtsps,rtp,srtp,udp,tcp,tls,crypto"
_PROTOCOLS = {"rtsp": _RTSP, "rtsps": _RTSP, "rtmp": "rtmp,tcp", "tcp": "tcp", "udp": "udp"}
"""What FFmpeg may open: a playlist that comes in their place names files and other addresses."""


def _open(scheme: str, rest: str, spec: SourceSpec) -> LiveVideo:
    url = f"{scheme}:{rest}"
    name = without_credentials(url)
    options = Options(name, spec.options, OPTIONS)
    try:
        parts = urlsplit(url)
        there = bool(parts.netloc) and (scheme in ("udp", "rtmp") or bool(parts.hostname))
        _ = parts.port
    except ValueError:
        there = False
    if not there:
        example = f"{scheme}://HOST:PORT/PATH"
        raise UsageError(f"{name} names no host", expected=example, fix=example)
    timeout_s = options.number("timeout", _TIMEOUT_S, least=0.1)
    ffmpeg = {**_QUICK, "protocol_whitelist": _PROTOCOLS[scheme]}
    if scheme in ("rtsp", "rtsps"):
        ffmpeg["rtsp_transport"] = options.choice("transport", _TRANSPORTS, "tcp")
        ffmpeg["timeout"] = str(int(timeout_s * 1e6))
    pictures = Pictures(spec, options.resize("area"), name)
    container = "mpegts" if scheme in ("tcp", "udp") else None
    return LiveVideo(
        url, name, spec, pictures, container=container, options=ffmpeg, timeout_s=timeout_s
    )


open_rtsp, open_rtsps = partial(_open, "rtsp"), partial(_open, "rtsps")
open_rtmp, open_tcp, open_udp = (partial(_open, word) for word in ("rtmp", "tcp", "udp"))

"""Command lines that the help of each verb shows."""

from __future__ import annotations

EXAMPLES = {
    "demo": ("--out demo", "--radar"),
    "new": ("my-radar radar/", "my-camera rtsp://camera/stream"),
    "train": (
        "radar-nowcast --data radar/ --out run",
        "radar-nowcast --keys",
        "--resume --out run",
    ),
    "import": ("checkpoint.pth --from predrnn --frame 1,64,64 --out run",),
    "export": (
        "run --out rain.bundle",
        "pretrained:radar-nowcast --grid 765x700 --out knmi.bundle",
    ),
    "sign": ("rain.bundle --key signer",),
    "verify": ("rain.bundle", "rain.bundle --engine trt --require-provider trt"),
    "evaluate": (
        "rain.bundle --data storms/ --out report",
        "run --part test --thresholds 0.5,5",
        "rain.bundle --compare newer.bundle --data storms/",
    ),
    "bench": ("rain.bundle --rounds 50",),
    "predict": (
        "rain.bundle radar/ --out nowcast.nc",
        "rain.bundle radar/ --grid 765x700 --at 2026-05-01T12:00 --out nowcast.gif",
        "rain.bundle radar/ --members 20 --out ensemble.nc",
    ),
    "backfill": (
        "rain.bundle archive.zarr --out nowcasts.zarr --workers 2",
        "rain.bundle archive.zarr --out nowcasts.zarr --shard 3/16",
    ),
    "stream": (
        "rain.bundle radar/ --sink nc:out --state-file radar.state",
        "camera.bundle rtsp://camera/stream --sink jsonl:- --log-format json",
    ),
    "serve": (
        "rain.bundle radar/ --on-gap bridge",
        "--config radar.toml --print-config",
    ),
    "package": ("rain.bundle --out models --sequences 200",),
    "inspect": ("rain.bundle",),
    "models": ("--json",),
    "doctor": ("--json",),
}
"""What follows the verb on command lines that its help shows; groups show theirs verb by verb."""

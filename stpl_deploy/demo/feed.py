"""Another process that fills a folder with frames, as a radar or a camera would.

    python -m stpl_deploy.demo.feed FRAMES.npy FOLDER PERIOD_S

Writes one PNG per frame of `(T, 1, H, W)` in [0, 1], named by its time, one nominal minute apart,
by a rename so that no reader sees half a file.
"""

from __future__ import annotations

import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from stpl_core.files import atomic_file

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
CADENCE = timedelta(minutes=1)


def feed(frames_path: Path, folder: Path, period_s: float) -> None:
    """Write the frames at their real pace."""
    from PIL import Image

    frames = np.load(frames_path)  # (T, 1, H, W)
    due = time.monotonic()
    for n, frame in enumerate(frames):
        picture = Image.fromarray(np.round(frame[0] * 255).astype(np.uint8))
        name = (START + n * CADENCE).strftime("%Y%m%d%H%M%S.png")
        with atomic_file(folder / name) as file:
            picture.save(file, format="PNG")
        due += period_s
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    feed(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))

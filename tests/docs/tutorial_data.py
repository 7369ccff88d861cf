"""What each tutorial says that its reader has, tiny, and what it leaves behind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from stpl_core.safety.trust import forget_trust

Prepared = Callable[[str], AbstractContextManager[dict[str, str]]]
"""A page's text -> what is typed in place of parts of its command lines; the folder is made."""


@dataclass(frozen=True)
class Given:
    """A tutorial's beginning and end."""

    prepared: Prepared
    makes: tuple[str, ...]
    """Patterns of files that must lie in the folder in the end."""
    libraries: tuple[str, ...] = ()
    settings: str = ""
    """Keys of every recipe that is trained, for `--set`: a smaller model, fewer iterations."""


@contextmanager
def _less_rain(text: str) -> Iterator[dict[str, str]]:
    """The demo's rain, cut to a part: the model takes any size, and a small one is fast."""
    from stpl_deploy.demo import radar

    frames, times = radar.rain()
    part = frames[:, :, 64:128, 80:144]
    assert (part > 0).mean() > 0.1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(radar, "rain", lambda: (part, times))
        yield {"192x192": "64x64", "0.12 to 8.64": "..."}


@contextmanager
def _radar(text: str) -> Iterator[dict[str, str]]:
    from stpl_deploy.demo import radar

    with _less_rain(text) as instead, pytest.MonkeyPatch.context() as patch:
        Path("demo").mkdir()
        radar.write_rain(Path("demo/radar"))
        frames, times = radar.rain()
        longer = np.concatenate([frames, frames[::-1]] * 2)  # (76, 1, H, W)
        steps = np.arange(len(longer)) * radar.CADENCE
        patch.setattr(radar, "rain", lambda: (longer, times[0] + steps))
        radar.write_rain(Path("archive"))
        parts = "--set data.validation_fraction=0.25 --set data.test_fraction=0.25"
        little = f"--iterations 1 --set training.batch=1 {parts}"
        yield instead | {"=ARCHIVE": "=archive", "--iterations 2000": little}


def _digits(count: int, length: int, size: tuple[int, int]) -> np.ndarray:
    """A square that moves, `(count, length, 1, H, W)` from 0 to 1."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    made = np.zeros((count, length, 1, *size), np.float32)
    for n in range(count):
        for t in range(length):
            down, right = (n + t) % size[0], (2 * n + t) % size[1]
            made[n, t, 0] = (abs(rows - down) < 3) & (abs(columns - right) < 3)
    return made


@contextmanager
def _checkpoint(text: str) -> Iterator[dict[str, str]]:
    import torch

    from tests.train.importers.checkpoints import st_lstm

    torch.manual_seed(0)
    weights = {name: 0.1 * tensor for name, tensor in st_lstm(norm=True).items()}
    torch.save({"net_param": weights}, "checkpoint.pth")
    np.save("test.npy", _digits(3, 20, (16, 24)))
    yield {}


@contextmanager
def _camera(text: str) -> Iterator[dict[str, str]]:
    import av

    from stpl_deploy.starting import sources
    from tests.runtime.sources.web_camera import MIXED, Camera, Handler, jpeg_of, part

    pictures = (255 * _digits(1, 150, (128, 128))[0, :, 0]).astype(np.uint8)  # (T, H, W)
    with av.open("traffic.mp4", "w") as film:
        stream = film.add_stream("libx264", rate=5)
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:], "yuv420p"
        for picture in pictures:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
        film.mux(stream.encode())
    camera = Camera()

    def answer(handler: Handler) -> None:
        def parts() -> Iterator[bytes]:
            for picture in cycle(pictures):
                yield part(jpeg_of(picture))
                if camera.closing.wait(0.1):
                    return

        handler.stream(MIXED, parts(), stays=False)

    camera.answer = answer
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sources, "_SECONDS", 1.0)
            yield {"camera/video": f"{camera.root}/video"}
    finally:
        camera.close()


@contextmanager
def _own(text: str) -> Iterator[dict[str, str]]:
    Path("frames").mkdir()
    for n, frame in enumerate(_digits(1, 4, (16, 16))[0]):
        np.save(f"frames/20260101000{n}.npy", frame)
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "my_model", raising=False)  # that of another test
        patch.setattr(sys, "path", [*sys.path])
        yield {}
    sys.modules.pop("my_model", None)
    forget_trust()


GIVEN = {
    "start.md": Given(_less_rain, ("rain.png", "rain.nc")),
    "tutorials/weather-service.md": Given(
        _radar, ("my-radar/nowcast.png", "my-radar/nowcasts/*.nc", "report/report.html"), ("cv2",)
    ),
    "tutorials/lab.md": Given(_checkpoint, ("bf16.bundle/manifest.json",), ("cv2", "polygraphy")),
    "tutorials/traffic-camera.md": Given(
        _camera,
        ("my-camera/README.md",),
        ("av", "cv2", "httpx"),
        "model.hidden=4 data.frame=[1,32,32] data.context=3 data.horizon=2 training.iterations=2"
        " training.batch=1 training.validate_every=2",
    ),
    "tutorials/own-model.md": Given(
        _own,
        ("nowcast.gif",),
        ("cv2",),
        "data.frame=[1,16,16] data.digit_size=7 data.context=3 data.horizon=2"
        " data.validation_sequences=4 training.iterations=2 training.batch=2",
    ),
}

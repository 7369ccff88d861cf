"""Pictures that PyAV decodes, from a file, a pipe, a network or a camera, as frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from stpl_core.errors import FrameError, UsageError
from stpl_core.frames import Frame
from stpl_core.grid import pixel_grid
from stpl_core.reader import VALUE
from stpl_core.readers.film import fraction, upright
from stpl_core.readers.fit import Resize, fit_for, resized_note
from stpl_core.readers.libraries import reads_with
from stpl_core.readers.model_input import model_input
from stpl_core.readers.units import grey_level
from stpl_core.safety.budget import check_pixels, most_pixels
from stpl_runtime.source import BadFrame, Seen, SourceSpec

if TYPE_CHECKING:
    import av

_FORMATS = {1: "gray", 3: "rgb24"}


class Pictures:
    """Makes frames for one model: grey or colour by its channels, averaged down to its size."""

    def __init__(self, spec: SourceSpec, resize: Resize, name: str) -> None:
        """Check that the model takes pictures.

        Args:
            spec: the frames that are expected.
            resize: for pictures of another size, where `spec.fit` says nothing.
            name: what they are called.

        Raises:
            MissingExtraError: PyAV is not installed.
            UsageError: the model's frames are no pictures.
        """
        with reads_with("video"):
            import av  # noqa: F401  # reported here, before anything is opened
        codec, channels = spec.codec, spec.shape[0]
        takes_pictures = codec.units == "1" and channels in _FORMATS
        if spec.look is None and not takes_pictures:
            raise UsageError(
                f"{name} gives grey or colour pictures",
                expected=f"{channels} channel(s) of {codec.quantity} in {codec.range_text()}",
                fix="a model that was trained on pictures",
            )
        self._spec, self._resize, self._name = spec, resize, name
        self.form = ""
        """Container and codec, where the source knows them: `form_of`."""

    def frame(self, picture: av.VideoFrame, at: datetime) -> Frame | BadFrame:
        """The frame of a picture that was taken at the time `at`."""
        spec, name = self._spec, self._name
        if picture.is_corrupt:
            return BadFrame(name, "a picture is damaged")
        try:
            check_pixels(name, picture.width, picture.height, spec.shape[0])
            if spec.look is not None:
                return self._as_it_comes(picture, at, spec.look)
            stored = upright(picture, _FORMATS[spec.shape[0]])  # (H, W) or (H, W, 3)
            planes = stored[None] if stored.ndim == 2 else np.moveaxis(stored, -1, 0)
            values = fraction(planes)[None]  # (1, C, H, W)
            size = (values.shape[1], values.shape[2], values.shape[3])
            fit = fit_for(size, spec.shape, spec.fit, self._resize, name)
            state = np.full((1, *size[1:]), VALUE, np.uint8)
            fitted = model_input(
                values, state, grey_level(), pixel_grid(*size[1:]), spec.codec, fit, name
            )
            data, _ = fitted.frame(0, name)
        except FrameError as error:
            return BadFrame(name, str(error))
        resized = spec.fit is None and fit.size is not None
        notes = {"resized": resized_note(size, fit)} if resized else {}
        return Frame(at, data, grid=fitted.grid, notes=notes, source_id=name)

    def _as_it_comes(
        self, picture: av.VideoFrame, at: datetime, look: Callable[[Seen], None]
    ) -> Frame:
        """The frame for no model."""
        colours = upright(picture, "rgb24")  # (H, W, 3)
        is_grey = bool((colours == colours[..., :1]).all())
        values = np.moveaxis(colours[..., : 1 if is_grey else 3], -1, 0) / np.float32(255)
        look(
            Seen(
                shape=(values.shape[0], values.shape[1], values.shape[2]),
                form=", ".join(filter(None, (self.form, picture.format.name))),
                low=float(values.min()),
                high=float(values.max()),
            )
        )
        return Frame(at, values.astype(np.float32), source_id=self._name)


def form_of(container: Any, stream: Any) -> str:
    """Container and codec of a film, and its rate, in words."""
    rate = f", {float(stream.average_rate):.6g} pictures a second" if stream.average_rate else ""
    return f"{container.format.name.partition(',')[0]}, {stream.codec_context.name}{rate}"


def video_stream(container: Any, name: str, threads: str = "AUTO") -> Any:
    """The video in a container.

    Args:
        container: just opened.
        name: what it is called.
        threads: AUTO decodes several frames at a time, each of which then comes later; SLICE parts
            of one.

    Raises:
        FrameError: there is none.
    """
    if not container.streams.video:
        raise FrameError(f"{name} holds no picture", expected="a video", fix="check what it is")
    stream = container.streams.video[0]
    stream.thread_type = threads
    check_pixels(name, stream.width, stream.height)
    stream.codec_context.options = {"max_pixels": str(most_pixels())}  # it may change on the way
    return stream


def decoded(container: Any, stream: Any, damaged: list[str]) -> Iterator[list[Any]]:
    """The pictures of each packet, in order, often one; what cannot be decoded is stepped over.

    Args:
        container: that the stream is in.
        stream: the video.
        damaged: gets a line for each packet that was stepped over.

    Raises:
        av.FFmpegError: the connection or file broke.
    """
    for packet in container.demux(stream):
        yield _of_packet(packet, damaged)


def _of_packet(packet: Any, damaged: list[str]) -> list[Any]:
    import av

    try:
        return list(packet.decode())
    except av.error.InvalidDataError as error:
        damaged.append(str(error))
    except av.error.EOFError:  # the decoder was flushed before
        pass
    return []

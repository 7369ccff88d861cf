"""What can be chosen of a forecast and of a stream, each once: see `stpl_core.option`.

`stpl-deploy predict`, `stream` and `serve` have these as options, `stpl_deploy.load` and the model
that it gives take them by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from stpl_core.errors import UsageError
from stpl_core.option import Option

if TYPE_CHECKING:
    from stpl_core.reader import ReadOptions

ContextMode = Literal["window", "carry"]
"""What a nowcast depends on.

`window`: exactly the newest T frames. `carry`: the state goes on from frame to frame.
"""

OnGap = Literal["reset", "hold", "bridge"]
"""What is done about missing frames."""

Baseline = Literal["persistence", "flow"]
"""A forecast that needs no model; see `stpl_core.baselines`."""

Policy = Literal["latest", "queue", "pace"]
"""What happens to nowcasts when frames come faster than they can be made.

`latest`: every frame enters the window at once, and only the newest slot's nowcast is made; those
that were overtaken are skipped, and counted. `queue`: frames wait, and each issue time gets its
nowcast in order; where the queue is full, a source that can wait does, another drops its oldest
frame. `pace`: as `queue`, and every source waits for the nowcast: for replays and files.
"""

BundlePath = Annotated[Path, Option("Bundle directory, from `stpl-deploy export`.", argument=True)]
Horizon = Annotated[int | None, Option("Frames to predict.", default="the bundle's", least=1)]
Probabilities = Annotated[
    bool,
    Option(
        "Also how likely each pixel is to reach each threshold of the model, as 1 mm/h: into nc, "
        "zarr, tif and npz.",
        flag="--probabilities",
    ),
]
Members = Annotated[
    int | None,
    Option(
        "Also an ensemble of so many members, whose spread is that of the model's chances: into "
        "nc, zarr and npz.",
        default="none",
        least=2,
        most=1000,
        metavar="N",
    ),
]
Seed = Annotated[
    int | None,
    Option(
        "Of --members: the same number gives the same noise.",
        default="0",
        least=0,
        most=2**32 - 1,
        metavar="N",
    ),
]


_ENGINES = (
    "onnx (CPU), openvino (CPU; openvino:winograd, openvino:GPU, openvino:NPU), onnx-cuda, "
    "onnx-cuda-graph, onnx-trt, onnx-trt-rtx, trt, trt-rtx; or a served model, triton:grpc://HOST:8001/NAME."
)


@dataclass(frozen=True)
class EngineOptions:
    """What a bundle runs on; see `stpl_runtime.engine.open_session`."""

    engine: Annotated[str, Option(f"auto (what is fastest here), {_ENGINES}")] = "auto"
    threads: Annotated[
        int | None, Option("Compute threads.", default="all CPUs it may use", least=1)
    ] = None
    forecast: Annotated[
        str,
        Option("trt, auto: by replays of the step, unrolled, or auto: what is faster."),
    ] = "auto"
    allow: Annotated[
        Literal["bf16"] | None,
        Option("auto, openvino: a lossy precision that fp32 may run in.", default="none"),
    ] = None
    require_provider: Annotated[
        str | None,
        Option("Refuse to run on anything else, by name or a part of it: cpu, cuda."),
    ] = None


@dataclass(frozen=True)
class ProofOptions(EngineOptions):
    """The same for verbs that judge: on ONNX Runtime, unless another engine is named."""

    engine: Annotated[str, Option(f"{_ENGINES} Or auto.")] = "onnx"


@dataclass(frozen=True)
class SignatureOptions:
    """Whose bundles are opened; see `stpl_core.safety.open_signed`."""

    trusted_keys: Annotated[
        Path | None,
        Option("Public key, or folder of them: open only what one of them signed."),
    ] = None
    min_version: Annotated[
        int | None,
        Option(
            "With --trusted-keys: refuse a bundle of an older version.",
            default="the newest that was opened here",
            least=0,
        ),
    ] = None


@dataclass(frozen=True)
class TrustOptions(SignatureOptions):
    """Whose bundles are opened, and how much a file may ask for."""

    max_pixels: Annotated[
        int | None,
        Option("Most values in one frame of a file.", default="by the model's grid", least=1),
    ] = None


@dataclass(frozen=True)
class ReadingOptions:
    """What a person may say about how files are read."""

    reader: Annotated[
        str | None,
        Option("Word of a reader, such as odim or video.", default="by what the files are"),
    ] = None
    variable: Annotated[
        str | None,
        Option(
            "Variable or quantity, where a file holds several.",
            default="the one there is, or as in training",
        ),
    ] = None
    time_format: Annotated[
        str | None,
        Option(
            "strptime pattern of the time in the names; * is anything.", default="what is found"
        ),
    ] = None
    units: Annotated[
        str | None,
        Option("Unit of the values: mm/h, mm/5min, dBZ.", default="what the files state"),
    ] = None
    nan: Annotated[
        Literal["no-data", "no-echo"],
        Option("What missing values are: not observed, or nothing there."),
    ] = "no-data"
    select: Annotated[
        Sequence[str],
        Option("Which level, member or other dimension to read; repeatable.", metavar="NAME=VALUE"),
    ] = ()
    bad_pixels: Annotated[
        float,
        Option(
            "Share of a file's pixels that may be impossible; they become no data.",
            least=0,
            most=1,
        ),
    ] = 0.01

    layout: Annotated[
        str | None,
        Option(
            "Axes of arrays, as NTHW: sequences, frames, channels, height, width.",
            default="what follows from the shape",
        ),
    ] = None

    def for_readers(self) -> ReadOptions:
        """As readers take them.

        Raises:
            UsageError: a pattern or a choice that does not hold.
        """
        from stpl_core.reader import ReadOptions
        from stpl_core.readers.time_format import time_format

        if self.time_format is not None:
            time_format(self.time_format)
        chosen = []
        for text in self.select:
            name, _, value = text.partition("=")
            if not name or not value:
                raise UsageError(
                    f"--select {text}", expected="NAME=VALUE", fix="--select level=850"
                )
            chosen.append((name, value))
        return ReadOptions(
            variable=self.variable,
            time_format=self.time_format,
            units=self.units,
            nan=self.nan,
            select=tuple(chosen),
            bad_pixels=self.bad_pixels,
            layout=self.layout,
        )


@dataclass(frozen=True)
class FrameOptions(ReadingOptions):
    """How frames are read, and how their times are found."""

    cadence: Annotated[
        float | None, Option("Seconds between frames.", default="the bundle's, or learned")
    ] = None
    mtime: Annotated[bool, Option("Take the files' modification times.", flag="--mtime")] = False


@dataclass(frozen=True)
class DomainOptions:
    """Frames of another size than the model's."""

    grid: Annotated[
        str | None, Option("HxW of larger frames: covered by tiles.", default="the model's")
    ] = None
    overlap: Annotated[
        int | None,
        Option(
            "Pixels that tiles share.", default="4 a frame predicted, a quarter to half", least=0
        ),
    ] = None
    any_grid: Annotated[
        bool,
        Option("Take frames whose pixels have another size than trained.", flag="--any-grid"),
    ] = False


@dataclass(frozen=True)
class PredictOptions:
    """A nowcast of what lies there."""

    horizon: Horizon = None
    at: Annotated[
        str | None,
        Option(
            "Issue time, UTC, as 2026-05-01T12:00: no later frame is read.",
            default="of the newest frame",
            metavar="TIME",
        ),
    ] = None
    probabilities: Probabilities = False
    members: Members = None
    seed: Seed = None
    baseline: Annotated[
        Baseline | None,
        Option(
            "Forecast without the model, to set beside it: persistence repeats the newest frame, "
            "flow moves it along its optical flow (needs OpenCV).",
            default="none",
        ),
    ] = None
    reading: FrameOptions = FrameOptions()
    domain: DomainOptions = DomainOptions()

    @property
    def needs_chances(self) -> bool:
        """Whether the chances of events must be made, to be given or to draw members from."""
        return self.probabilities or self.members is not None


@dataclass(frozen=True)
class BackfillOptions:
    """Nowcasts of every window of an archive."""

    bundle: BundlePath
    archive: Annotated[
        Path, Option("Folder or file of frames; see data inspect ARCHIVE.", argument=True)
    ]
    out: Annotated[Path, Option("Zarr store to write, or to continue.", metavar="STORE.zarr")]
    horizon: Horizon = None
    workers: Annotated[int, Option("Processes, which share the CPUs.", least=1)] = 1
    shard: Annotated[
        str | None,
        Option(
            "Make only part I of N: one for each job of an array, all with one store.",
            default="all of it",
            metavar="I/N",
        ),
    ] = None
    dask: Annotated[
        str | None,
        Option("Scheduler whose workers make it, as tcp://HOST:8786.", metavar="ADDRESS"),
    ] = None
    evaluate: Annotated[
        bool,
        Option("Score nowcasts and persistence against the frames that came.", flag="--evaluate"),
    ] = False
    cadence: Annotated[
        float | None, Option("Seconds between frames.", default="the bundle's, or the archive's")
    ] = None
    reading: ReadingOptions = ReadingOptions()
    domain: DomainOptions = DomainOptions()
    backend: EngineOptions = EngineOptions()
    trust: TrustOptions = TrustOptions()


@dataclass(frozen=True)
class StreamOptions:
    """Nowcasts of what arrives."""

    sources: Annotated[
        Sequence[str],
        Option(
            "A folder, video or archive; - (standard input); camera:0; or a URL: http (also MJPEG "
            "and HLS), s3, rtsp, mqtt, kafka, zmq. Several as NAME=SOURCE. All are in "
            "docs/live-sources.md.",
            metavar="SOURCE",
            argument=True,
        ),
    ]
    sinks: Annotated[
        Sequence[str],
        Option(
            "Where nowcasts go: nc, zarr, tif, png, gif, mp4 or npz with a directory, jsonl with "
            "a file, webhook and mqtt with a URL; repeatable.",
            flag="--sink",
            metavar="WORD:PATH",
        ),
    ] = ()
    context: Annotated[
        ContextMode,
        Option("window: exactly the newest T frames; carry: never reset the state."),
    ] = "window"
    horizon: Horizon = None
    probabilities: Probabilities = False
    backend: EngineOptions = EngineOptions()
    reading: FrameOptions = FrameOptions()
    source_options: Annotated[
        Sequence[str],
        Option(
            "An option of the source; repeatable. docs/live-sources.md has them all.",
            flag="--source-option",
            metavar="NAME=VALUE",
        ),
    ] = ()
    domain: DomainOptions = DomainOptions()
    lateness: Annotated[int | None, Option("Slots that a frame may be late.", default="T-1")] = None
    on_gap: Annotated[
        OnGap,
        Option(
            "Missing frames: reset waits for T in a row; hold repeats the frame before; bridge "
            "takes the model's forecast. At most half of the T frames; flagged in every output."
        ),
    ] = "reset"
    policy: Annotated[
        Policy,
        Option(
            "Too many frames: latest skips nowcasts, queue makes each in order, pace lets the "
            "source wait (replays, files)."
        ),
    ] = "latest"
    batch_wait: Annotated[
        float | None,
        Option(
            "Several sources: hold a nowcast for so many milliseconds at most, to make it in one "
            "call with those of the other streams. docs/streaming.md",
            default="hold none",
            least=0,
            most=10_000,
            metavar="MS",
        ),
    ] = None
    group: Annotated[
        str | None,
        Option(
            "kafka: share the topic's streams with every process of this group; the key of a "
            "record names its stream. docs/scale.md",
            default="one process, one stream",
            metavar="NAME",
        ),
    ] = None
    state_file: Annotated[
        Path | None, Option("Go on from here after a restart, kill -9 included.")
    ] = None
    keep: Annotated[int | None, Option("Nowcasts to keep, the newest.", default="all", least=1)] = (
        None
    )
    keep_age: Annotated[
        str | None, Option("Keep nowcasts so long: 90s, 30m, 12h, 7d.", default="for ever")
    ] = None


@dataclass(frozen=True)
class RunLimits:
    """When a stream ends by itself."""

    max_nowcasts: Annotated[int | None, Option("End after so many.", default="no end", least=1)] = (
        None
    )
    idle_timeout: Annotated[
        float | None,
        Option("End when nothing came for so many seconds.", default="wait for ever", least=0.0),
    ] = None

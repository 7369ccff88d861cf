"""The options of the verbs that run an engine, and their session."""

from __future__ import annotations

from typing import Annotated

import typer

Engine = Annotated[
    str,
    typer.Option(
        help="onnx (CPU), onnx-cuda, onnx-cuda-graph, onnx-trt, onnx-trt-rtx, trt or trt-rtx."
    ),
]
Forecast = Annotated[
    str,
    typer.Option(help="trt: by replays of the step, the unrolled plan, or auto: what is faster."),
]
RequireProvider = Annotated[
    str | None,
    typer.Option(help="Refuse to run on anything else, by name or a part of it: cpu, cuda."),
]

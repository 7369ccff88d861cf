"""The models as a table: what is counted, where each comes from, what its paper printed.

Every number is counted on the model itself, with its default keys on its reference grid, without
memory for its weights (torch's meta device). Multiply-adds are those of convolutions and matrix
products in one step of one sequence (torch's FlopCounterMode, halved); element products, norms and
activations are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel
from torch.utils.flop_counter import FlopCounterMode

from stpl_train.forecaster import FrameShape
from stpl_train.models import MODELS, build_model, model_class

FRAME: FrameShape = (1, 64, 64)
"""The reference grid: Moving MNIST, in patches of 4 by every model's default."""


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, and the parameter count that was printed for it."""

    title: str
    paper: str
    code: str
    """What its equations and tensors follow, or `none released`."""
    printed: str = ""
    """The count in print, in words; empty where none was printed."""
    remark: str = ""
    """How the printed count relates to the counted one."""


_PRINTED_IN = "MoDeRNN's and CMS-LSTM's tables"

ORIGINS: dict[str, Origin] = {
    "advect": Origin(
        "Advect",
        "none; motion: Lucas and Kanade, IJCAI 1981",
        "none: stpl-deploy's own",
    ),
    "convlstm": Origin(
        "ConvLSTM",
        "Shi et al., NeurIPS 2015",
        "chengtan9907/OpenSTL c74deb5d4c",
        printed="15.0M (OpenSTL)",
        remark="3,407,872 of OpenSTL's 15,083,520 are created and never used",
    ),
    "predrnn": Origin(
        "PredRNN",
        "Wang et al., NeurIPS 2017",
        "thuml/predrnn-pytorch 49d3b0f3a2",
        printed=f"13.799M ({_PRINTED_IN})",
        remark="13.799M matches 3 x 4,599,560, a narrower variant counted three times (weights "
        "and two Adam moments?); counted here is the released script, 4 x 128",
    ),
    "predrnn-v2": Origin(
        "PredRNN-V2",
        "Wang et al., TPAMI 2022",
        "thuml/predrnn-pytorch 49d3b0f3a2",
        printed="23.9M (OpenSTL)",
        remark="the adapter of the decoupling loss is counted; inference does not run it",
    ),
    "predrnn-zigzag": Origin(
        "PredRNN with the memory M only",
        "Wang et al., NeurIPS 2017, Eq. 3",
        "none released",
        remark="width and kernel were not published; 4 x 128 and 5x5 are assumed",
    ),
    "predrnn-pp": Origin(
        "PredRNN++",
        "Wang et al., ICML 2018",
        "TensorFlow original; chengtan9907/OpenSTL c74deb5d4c",
        printed=f"13.237M ({_PRINTED_IN}), 38.6M (OpenSTL)",
        remark="13.237M is not reproduced by any setting; OpenSTL's 38,584,320 at 4 x 128 hold "
        "3,276,800 that are never used",
    ),
    "mim": Origin(
        "MIM",
        "Wang et al., CVPR 2019",
        "TensorFlow original; chengtan9907/OpenSTL c74deb5d4c",
        printed=f"27.971M ({_PRINTED_IN}), 38.0M (OpenSTL)",
        remark="27.971M is not reproduced by any setting; OpenSTL's is 4 x 128",
    ),
    "e3d-lstm": Origin(
        "E3D-LSTM",
        "Wang et al., ICLR 2019",
        "TensorFlow original google/e3d_lstm, its memory bug mended",
        printed=f"38.696M ({_PRINTED_IN})",
        remark="38,696,496 is exactly 3 x 12,898,832: presumably weights and two Adam moments",
    ),
    "modernn": Origin(
        "MoDeRNN",
        "Chai et al., ICASSP 2022",
        "czh-98/MoDeRNN 4db34f4ec2",
        printed="4.590M (its paper)",
        remark="no setting of the released code gives 4.590M; with 5x5 gates it is 7,964,752",
    ),
    "cms-lstm": Origin(
        "CMS-LSTM",
        "Chai et al., ICME 2022",
        "czh-98/CMS-LSTM 6dfcd19701",
        printed="7.968M (its paper)",
        remark="the same",
    ),
    "sa-convlstm": Origin(
        "SA-ConvLSTM",
        "Lin et al., AAAI 2020",
        "none released; published re-implementations differ",
        printed=f"10.471M ({_PRINTED_IN})",
        remark="10.471M is not reproduced; published variants count 3.5M to 8.0M",
    ),
}


@dataclass(frozen=True)
class Entry:
    """One row of `stpl-deploy models`."""

    model: str
    """The word of `stpl_train.models.MODELS`."""
    origin: Origin
    frame: FrameShape
    keys: dict[str, Any]
    """Every key of its `[model]` section with its default."""
    parameters: int
    gmac_per_step: float
    """10^9 multiply-adds of convolutions and matrix products, one sequence."""
    state: dict[str, tuple[int, ...]]
    """State tensors without their batch axis."""
    state_bytes: int
    """Of one sequence, in float32."""


def catalogue() -> list[Entry]:
    """Every registered model, in the order of the register."""
    return [entry(model) for model in MODELS]


def entry(model: str, frame: FrameShape = FRAME, **keys: Any) -> Entry:
    """Count one model.

    Args:
        model: a word of `stpl_train.models.MODELS`.
        frame: (C, H, W).
        keys: its recipe keys, where they are not the defaults.
    """
    config: BaseModel = getattr(model_class(model), "Config")(**keys)  # noqa: B009 (for mypy)
    with torch.device("meta"), torch.no_grad():
        network = build_model(model, frame, keys)
        state = network.initial_state(1)
        with FlopCounterMode(display=False) as counter:
            network.step(torch.empty(1, *frame), state)
    return Entry(
        model=model,
        origin=ORIGINS[model],
        frame=frame,
        keys=config.model_dump(mode="json"),
        parameters=sum(tensor.numel() for tensor in network.parameters()),
        gmac_per_step=counter.get_total_flops() / 2e9,
        state={name: tuple(tensor.shape[1:]) for name, tensor in state.items()},
        state_bytes=sum(tensor.numel() * tensor.element_size() for tensor in state.values()),
    )


COLUMNS = ("model", "parameters", "GMAC/step", "state tensors", "state KiB")


def table_rows(entries: list[Entry]) -> list[list[str]]:
    """The cells of COLUMNS for each model."""
    return [
        [
            found.model,
            f"{found.parameters:,}",
            f"{found.gmac_per_step:.3f}",
            str(len(found.state)),
            f"{found.state_bytes / 1024:,.0f}",
        ]
        for found in entries
    ]


def markdown(entries: list[Entry]) -> str:
    """The tables of docs/models.md."""
    sources = [[found.origin.paper, found.origin.code] for found in entries]
    counted = [row + source for row, source in zip(table_rows(entries), sources, strict=True)]
    lines = [*_table([*COLUMNS, "paper", "equations and tensors follow"], counted), ""]
    printed = [
        [found.model, f"{found.parameters:,}", found.origin.printed, found.origin.remark]
        for found in entries
        if found.origin.printed
    ]
    lines += [*_table(["model", "counted here", "in print", "how they relate"], printed), ""]
    keys = [
        [found.model, ", ".join(f"`{key} = {_toml(value)}`" for key, value in found.keys.items())]
        for found in entries
    ]
    lines += _table(["model", "keys of `[model]` and their defaults"], keys)
    return "\n".join(lines) + "\n"


def _table(columns: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _toml(value: Any) -> str:
    if value is None:
        return "(the hidden width)"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)

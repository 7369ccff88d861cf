"""Checkpoint files of other projects, opened without running anything that is in them.

Read are: a bare state dict; a dict that holds one under `state_dict` (MoDeRNN, CMS-LSTM, OpenSTL,
Lightning), `model_state_dict`, `net_param` (predrnn-pytorch), `net` or `model`; and safetensors.
`torch.load` is always called with `weights_only=True`, so a pickle that names any other class or
function is refused before that is touched.
"""

from __future__ import annotations

import argparse
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from stpl_core.errors import CheckpointError

INSIDE = ("state_dict", "model_state_dict", "net_param", "net", "model")
"""Where a dict may hold its state dict, in the order of looking."""
AVERAGED = ("ema", "averaged", "avg_model", "swa")
"""In a key's name, in lower case: a moving average of the weights."""

WRAPPERS = ("module.", "_orig_mod.", "model.")
"""Prefixes that DataParallel, torch.compile and Lightning put before every name."""


def _harmless() -> list[Any]:
    """Plain data that lies beside weights; none of it can run code when it is rebuilt.

    OpenSTL keeps a numpy mean and deviation, others an argparse Namespace. numpy's own functions
    are asked for by the names of numpy 1 and of numpy 2.
    """
    rebuild_array = np.zeros(1).__reduce__()[0]
    rebuild_scalar = np.float64(0).__reduce__()[0]
    numpy_names = [
        (function, f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for function, name in ((rebuild_array, "_reconstruct"), (rebuild_scalar, "scalar"))
    ]
    dtypes = {type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}
    return [argparse.Namespace, np.ndarray, np.dtype, *dtypes, *numpy_names]


@dataclass(frozen=True)
class Container:
    """What a checkpoint file holds."""

    kind: str
    """In words: `state dict`, `dict with net_param`, `Lightning checkpoint`, `safetensors`."""
    tensors: dict[str, Tensor]
    """Upstream names without the prefix of a wrapper, on the CPU."""
    hyper_parameters: dict[str, Any] = field(default_factory=dict)
    """The configuration that a Lightning checkpoint carries."""
    averaged: tuple[str, ...] = ()
    """Keys beside the state dict that hold a moving average of the weights (EMA): not read."""


def read_container(path: Path) -> Container:
    """Read a checkpoint file.

    Raises:
        CheckpointError: no file, a directory, empty, truncated, a pickle that would run code, no
            state dict inside, or a tensor with NaN or infinity.
    """
    _check_file(path)
    if _is_safetensors(path):
        kind, document = "safetensors", _load_safetensors(path)
    else:
        kind, document = "state dict", _load_torch(path)
    hyper_parameters: dict[str, Any] = {}
    averaged: tuple[str, ...] = ()
    inside = next((key for key in INSIDE if _is_state_dict(document.get(key))), None)
    if inside is not None:
        lightning = "pytorch-lightning_version" in document
        kind = "Lightning checkpoint" if lightning else f"dict with {inside}"
        hyper_parameters = _plain(document.get("hyper_parameters"))
        averaged = tuple(key for key in document if key != inside and _is_averaged(key, document))
        document = document[inside]
    if not _is_state_dict(document):
        raise CheckpointError(
            f"{path} holds {', '.join(map(str, list(document)[:5])) or 'nothing'}",
            expected=f"tensors by name, or a dict with one of {', '.join(INSIDE)}",
            fix="save model.state_dict() and import that",
        )
    tensors = _unwrapped(document)
    _check_finite(path, tensors)
    return Container(kind, tensors, hyper_parameters, averaged)


def _is_averaged(key: Any, document: Mapping[str, Any]) -> bool:
    """Whether a key of a checkpoint holds averaged weights: tensors by name, at any depth."""
    words = re.split(r"[^a-z]+", str(key).lower())
    named = any(word in words for word in AVERAGED) or "avg_model" in str(key).lower()
    return named and _holds_tensors(document[key])


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_tensors, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_holds_tensors, value))
    return isinstance(value, Tensor)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise CheckpointError(
            f"{path} is a directory", expected="a checkpoint file", fix=_suggest(path)
        )
    if not path.is_file():
        raise CheckpointError(f"no file {path}", expected="a checkpoint file", fix="check the path")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty", expected="a checkpoint file", fix=_COPY_AGAIN)


_COPY_AGAIN = "copy it again from where it was trained"


def _suggest(directory: Path) -> str:
    """The newest thing in the directory that looks like a checkpoint."""
    suffixes = (".ckpt", ".pth", ".pt", ".tar", ".chk", ".safetensors")
    files = [f for f in directory.iterdir() if f.is_file() and f.name.endswith(suffixes)]
    if not files:
        return "name the file in it"
    return f"stpl-deploy import {max(files, key=lambda f: f.stat().st_mtime)}"


def _is_safetensors(path: Path) -> bool:
    """By its suffix, or by its start: eight bytes of length, then JSON."""
    with path.open("rb") as file:
        head = file.read(9)
    return path.suffix == ".safetensors" or (len(head) == 9 and head[8:] == b"{")


def _load_safetensors(path: Path) -> dict[str, Any]:
    try:
        tensors: dict[str, Any] = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a complete safetensors file: {_line(error)}",
            expected="a complete file",
            fix=_COPY_AGAIN,
        ) from error
    return tensors


def _load_torch(path: Path) -> dict[str, Any]:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
            warnings.simplefilter("ignore")  # about the pickle's age; what matters is raised
            document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file can raise anything in the unpickler
        raise _why_not(path, error) from error
    if isinstance(document, argparse.Namespace):
        document = vars(document)
    if not isinstance(document, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(document).__name__}",
            expected="a state dict, or a dict that holds one",
            fix="save model.state_dict() and import that",
        )
    return dict(document)


def _why_not(path: Path, error: Exception) -> CheckpointError:
    """Distinguish a pickle that names code, a damaged file, and no checkpoint at all."""
    with path.open("rb") as file:
        head = file.read(len(_LEGACY_MAGIC))
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    plain_pickle = head[:1] == b"\x80" and not _LEGACY_MAGIC.startswith(head)
    if named or plain_pickle:
        what = f"would load {named[1]}" if named else "is a plain pickle"
        return CheckpointError(
            f"{path} {what}, which may run code; none of it was run",
            expected="tensors and plain values only, as torch.save writes them",
            fix="torch.save(model.state_dict(), FILE) where it was trained, then import that",
        )
    if zipfile.is_zipfile(path) and "PytorchStreamReader" not in str(error):
        return CheckpointError(
            f"{path} is an archive of another kind (TorchScript?)",
            expected="a file of torch.save or safetensors",
            fix="torch.save(model.state_dict(), FILE) where it was trained, then import that",
        )
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
        return CheckpointError(
            f"{path} is cut off or damaged ({path.stat().st_size:,} bytes)",
            expected="a complete checkpoint",
            fix=_COPY_AGAIN,
        )
    return CheckpointError(
        f"{path} is not a PyTorch checkpoint",
        expected="a file of torch.save or safetensors",
        fix="check the path",
    )


_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first pickle of torch's own format before 1.6."""


def _is_state_dict(document: Any) -> bool:
    return (
        isinstance(document, Mapping)
        and len(document) > 0
        and all(isinstance(name, str) for name in document)
        and all(isinstance(value, Tensor) for value in document.values())
    )


def _plain(stored: Any) -> dict[str, Any]:
    if isinstance(stored, argparse.Namespace):
        return vars(stored)
    return dict(stored) if isinstance(stored, Mapping) else {}


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off prefixes that every name carries."""
    names = list(tensors)
    found = True
    while found:
        found = False
        for prefix in WRAPPERS:
            if all(name.startswith(prefix) for name in names):
                names = [name.removeprefix(prefix) for name in names]
                found = True
    return dict(zip(names, tensors.values(), strict=True))


def _check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            bad = int((~tensor.isfinite()).sum())
            raise CheckpointError(
                f"{path}: tensor {name} has NaN or infinity in {bad} of {tensor.numel()} places",
                expected="finite weights",
                fix="an earlier checkpoint, from before the training diverged",
            )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]

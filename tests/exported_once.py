"""A model is traced once for all tests and parallel workers: torch's exporter takes seconds."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import nn


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """What `make` writes to a path, once for all parallel workers."""
    from filelock import FileLock

    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # the workers have folders of their own in it
    path = folder / "once" / name
    path.parent.mkdir(exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            make(path)
    return path


def fingerprint(model: nn.Module, *more: object) -> str:
    """Equal for models of the same classes, settings and weights, in any process."""
    import torch

    seen = hashlib.sha256(repr(more).encode())
    own = set(vars(torch.nn.Module()))
    for name, module in model.named_modules():
        seen.update(f"{name} {type(module).__module__}.{type(module).__qualname__}".encode())
        for key, value in sorted(vars(module).items()):
            if key not in own:
                assert not isinstance(value, torch.Tensor), f"{name}.{key} is no buffer"
                seen.update(f"{key}={value!r}".encode())
    for name, tensor in model.state_dict().items():
        seen.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        seen.update(tensor.detach().contiguous().numpy().tobytes())
    return seen.hexdigest()[:32]


@pytest.fixture(scope="session")
def exported_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What torch exports of a model is kept, by all that the model is."""
    onnx = pytest.importorskip("onnx")
    torch = pytest.importorskip("torch")
    trace = torch.onnx.export

    def export(model: nn.Module, inputs: tuple[Any, ...], **options: Any) -> Any:
        shapes = [(tuple(tensor.shape), tensor.dtype) for tensor in inputs]
        key = fingerprint(model, shapes, sorted(options.items(), key=lambda item: item[0]))

        def save(path: Path) -> None:
            made = trace(model, inputs, **options).model_proto.SerializeToString()
            part = path.with_suffix(".part")
            part.write_bytes(made)
            part.rename(path)

        path = made_once(tmp_path_factory, f"{key}.onnx", save)
        return SimpleNamespace(model_proto=onnx.load(path))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", export)
        _read_the_operators_once(patch)
        yield


def _read_the_operators_once(patch: pytest.MonkeyPatch) -> None:
    """The exporter reads the source of 500 functions again for each model: one second."""
    from torch.onnx._internal.exporter import _registration

    apis = getattr(_registration, "onnxscript_apis", None)
    if hasattr(apis, "get_torchlib_ops"):
        patch.setattr(apis, "get_torchlib_ops", functools.cache(apis.get_torchlib_ops))

"""Import paths of earlier versions: they still work for now, and warn with the new name.

What every package shares was in `stpl_deploy` and is in `stpl_core`.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

_MOVED = frozenset({
    "baselines", "bundle", "cgroup", "codec", "colours", "errors", "fetch", "files", "frames",
    "grid", "machine", "metrics", "parts", "rain", "reader", "readers", "same_grid", "scores",
})  # fmt: skip
"""Modules of `stpl_deploy` that `stpl_core` has under the same name."""

_RENAMED = {
    "cgroup": "host.cgroup",
    "colours": "drawing.colours",
    "readers.extras": "readers.libraries",
    "readers.own": "readers.converted",
    "readers.sight": "readers.preview",
    "readers.whole": "readers.completeness",
}


def new_name(name: str) -> str | None:
    """Where a module of an earlier version is now; None where it never was one.

    Args:
        name: in full, such as `stpl_deploy.readers.opening`.
    """
    package, _, rest = name.partition(".")
    if package != "stpl_deploy" or rest.partition(".")[0] not in _MOVED:
        return None
    return f"stpl_core.{_RENAMED.get(rest, rest)}"


class OldNames:
    """Finds modules by their old names."""

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> ModuleSpec | None:
        """See importlib; the warning points at the line that imports."""
        new = new_name(fullname)
        if new is None:
            return None
        warnings.warn(
            f"{fullname} is now {new}; the old name will go",
            DeprecationWarning,
            stacklevel=2,
        )
        # importlib.abc would cost a third of the import of this package: its Loader is only named.
        loader = cast("Loader", _Forward(new))
        return ModuleSpec(fullname, loader, is_package=new == "stpl_core.readers")


class _Forward:
    """Gives the module of the new name; there is one module, not two."""

    def __init__(self, new: str) -> None:
        self._new = new
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._new)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # importlib put the old name's in its place


def install() -> None:
    """Let old names be found; once."""
    if not any(isinstance(finder, OldNames) for finder in sys.meta_path):
        # Before the others, which would find the modules of a package that moved a second time.
        sys.meta_path.insert(0, OldNames())

"""No module imports, directly or by others, what imports it: in all five packages."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import pytest

grimp = pytest.importorskip("grimp")

PACKAGES = ("stpl_core", "stpl_train", "stpl_runtime", "stpl_export", "stpl_deploy")


def circle(imports: dict[str, set[str]]) -> list[str]:
    """The first circle; empty where there is none."""
    try:
        tuple(TopologicalSorter(imports).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def test_a_circle_is_found() -> None:
    assert not circle({"a": {"b", "c"}, "b": {"c"}})
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


def test_imports_have_no_circle() -> None:
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert sum(map(len, imports.values())) > 500  # it looked at something
    assert circle(imports) == []

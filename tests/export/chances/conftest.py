"""A bundle that gives chances, and frames for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stpl_core.bundle import Bundle, open_bundle
from tests.export.chances.small_advect import contexts, exported
from tests.exported_once import made_once


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, exported_once: None) -> Bundle:
    return open_bundle(made_once(tmp_path_factory, "chances", exported) / "bundle")


@pytest.fixture
def saved(bundle: Bundle, tmp_path: Path) -> Path:
    path = tmp_path / "rain.npy"
    np.save(path, contexts(bundle, 1)[0])
    return path

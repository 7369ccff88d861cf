"""What the tests of several verbs need: frames, what predict gives of them, what is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stpl_core.bundle import Bundle
from stpl_core.codec import Array
from stpl_runtime.engine import Session
from stpl_runtime.nowcasting.predict import predict_sequences
from tests.runtime.conftest import picture


def sequence(count: int) -> Array:
    """`(count, C, H, W)`"""
    return np.stack([picture(n) for n in range(count)])


def left(path: Path) -> list[str]:
    """Every file below `path`, hidden ones too."""
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())


def expected(bundle: Bundle, session: Session, frames: Array, horizon: int = 3) -> Array:
    return predict_sequences(bundle, session, frames[None], horizon)[0]


def faults(err: str) -> list[str]:
    """The lines of stderr but the one that says what the frames were taken for."""
    return [line for line in err.splitlines() if not line.startswith("data /")]


LIMITED = """
import resource, sys
from stpl_deploy.cli import run
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
sys.exit(run(sys.argv[1:]))
"""

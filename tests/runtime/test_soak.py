"""A long, hostile stream; by hand: `make soak`."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import psutil
import pytest

from stpl_deploy.bundle import Bundle
from stpl_deploy.frames import Frame
from stpl_runtime.engine import Session
from stpl_runtime.nowcaster import Nowcaster
from tests.runtime.conftest import make_frame

ARRIVALS = 100_000
WARM = 5_000


def hostile(seed: int) -> Iterator[Frame]:
    """Frames in the main in order; some missing, late, repeated, corrected or broken."""
    random = np.random.default_rng(seed)
    for slot in itertools.count(10):
        kind = random.choice(
            ["plain", "missing", "late", "repeat", "correct", "nan", "shape", "swap"],
            p=[0.9, 0.015, 0.015, 0.015, 0.015, 0.015, 0.01, 0.015],
        )
        frame = make_frame(slot)
        if kind == "missing":
            continue
        if kind == "nan":
            yield replace(frame, data=np.full_like(frame.data, np.nan))
        elif kind == "shape":
            yield replace(frame, data=frame.data[:, :-1])
        elif kind == "swap":
            yield make_frame(slot + 1)
        yield frame
        if kind == "late":
            yield make_frame(slot - int(random.integers(1, 9)))
        elif kind == "repeat":
            yield make_frame(slot)
        elif kind == "correct":
            yield make_frame(slot, variant=1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_arrivals(bundle: Bundle, session: Session) -> None:
    """Counts add up at each, memory stays, sampled nowcasts are those of the offline rollout."""
    nowcaster = Nowcaster(bundle, session, cadence_s=300.0)
    process = psutil.Process()
    compared = grown = 0
    start = 0
    for n, frame in enumerate(itertools.islice(hostile(0), ARRIVALS)):
        nowcaster.put(frame)
        assert nowcaster.ledger.snapshot().add_up
        nowcast = nowcaster.issue()
        if nowcast is not None and nowcaster.issued % 500 == 0:
            units = bundle.manifest.codec.model_from_physical(nowcast.context)
            offline = session.rollout(units[None])[0]  # (K, C, H, W)
            physical = bundle.manifest.codec.physical_from_model(offline)
            np.testing.assert_allclose(nowcast.frames, physical, rtol=0, atol=1e-6)
            compared += 1
        while nowcaster.idle_step():
            pass
        if n in (WARM, ARRIVALS - 1):
            gc.collect()
            start, grown = grown, process.memory_info().rss
    counts = nowcaster.ledger.snapshot()
    assert counts.received == ARRIVALS
    assert min(counts.used, counts.late, counts.duplicate, counts.bad) > 100
    assert nowcaster.issued > ARRIVALS / 2
    assert compared > 50
    assert (grown - start) / 2**20 < 5.0

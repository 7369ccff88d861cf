"""Pixels that were not observed reach the model as its mark, whichever way the frames came."""

from __future__ import annotations

import functools
from datetime import datetime, timezone

import numpy as np
import pytest

from stpl_core.bundle import Bundle, open_bundle
from stpl_core.codec import NO_DATA, Array
from stpl_core.frames import Frame
from stpl_runtime.engine import open_session
from stpl_runtime.ingest.inputs import Context
from stpl_runtime.nowcasting.make import make_nowcast
from stpl_runtime.nowcasting.window import Entry
from stpl_runtime.proof.reference import load_reference
from stpl_runtime.proof.verify import first_breach, verify_bundle
from tests.export.chances.small_advect import (
    FRAME,
    HORIZON,
    by_torch,
    contexts,
    exported,
    small,
)
from tests.exported_once import made_once


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    make = functools.partial(exported, marks_no_data=True)
    return open_bundle(made_once(tmp_path_factory, "marked", make) / "bundle")


def with_holes(bundle: Bundle) -> Array:
    """`(T, C, H, W)`, physical units: a third of each frame was not observed."""
    frames = contexts(bundle, 1)[0]
    frames[..., : FRAME[2] // 3] = np.nan
    return frames


def expected(bundle: Bundle, frames: Array) -> tuple[Array, Array]:
    """Frames, physical, and chances, as PyTorch steps over the marks."""
    inside = bundle.manifest.codec.model_from_physical(frames)
    assert (inside == NO_DATA).mean() == pytest.approx(1 / 3)
    guesses, chances = by_torch(small(), inside[None], HORIZON)
    return bundle.manifest.codec.physical_from_model(guesses[0].clip(0, 1)), chances[0]


def test_a_bundle_keeps_its_promise_on_marked_frames(marked: Bundle) -> None:
    assert marked.manifest.codec.marks_no_data
    assert load_reference(marked).observed is not None
    assert first_breach(verify_bundle(marked, engine="onnx")) is None


def test_predictions_and_streams_give_the_model_the_marks(marked: Bundle) -> None:
    frames = with_holes(marked)
    codec = marked.manifest.codec
    seen = ~np.isnan(frames[:, 0])  # (T, H, W)
    values, chances = expected(marked, frames)
    filled = np.nan_to_num(frames)
    context = Context(frames=filled[None], observed=seen[-1], context_observed=seen)
    session = open_session(marked, ("step",))
    made = make_nowcast(marked, session, context, chances=True)
    session.close()
    assert made.chances is not None
    np.testing.assert_allclose(made.frames, values, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(made.chances.values, chances, atol=1e-4)
    dry, _ = by_torch(small(), codec.model_from_physical(filled)[None], HORIZON)
    assert not np.allclose(values, codec.physical_from_model(dry[0].clip(0, 1)), rtol=1e-2)
    for t in range(len(frames)):
        entry = Entry(t, t, Frame(datetime.now(timezone.utc), filled[t], seen[t]), None)
        given = entry.model_frame(codec)
        np.testing.assert_array_equal(given, codec.model_from_physical(frames[t])[None])

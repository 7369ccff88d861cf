"""What takes long says where it is, also where no terminal shows a bar."""

from __future__ import annotations

import re

import pytest

from stpl_deploy.cli.reports import output


def test_a_line_now_and_then_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_LINE_S", 0.0)
    with output.timed_bar("sequences") as progress:
        for done in range(3):
            progress(done, 2)
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"1 of 2 sequences, \d+ s left", first)
    assert second.startswith("2 of 2 sequences")


def test_not_at_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    with output.timed_bar("sequences") as progress:
        for done in range(3):
            progress(done, 2)
    assert capsys.readouterr().err == ""


def test_the_reference_of_an_export_counts_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    import numpy as np

    from stpl_export import reference
    from stpl_train.models import build_model

    monkeypatch.setattr(reference, "_LINE_S", 0.0)
    keys = {"hidden": [4], "patch": 4}
    model = build_model("convlstm", (1, 16, 16), keys).eval()
    frames = np.random.default_rng(0).random((1, 3, 1, 16, 16), np.float32)
    lines: list[str] = []
    reference.make_reference(model, frames, 2, "here", progress=lines.append)
    assert lines == [f"PyTorch reference: {n} of 4 steps" for n in (1, 2, 3)]

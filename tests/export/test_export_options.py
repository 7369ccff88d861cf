"""`export`: what is asked for is done, or refused before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from stpl_deploy.cli import run
from tests.export.conftest import TRAINED


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch", "1,4"], "--batch 1,4 with --engine onnx, which does not hear it"),
        (["--gpu", "8.6"], "try: --engine trt-rtx, or leave --gpu out"),
        (["--graphs", "step"], "--graphs step with --engine onnx"),
        (["--compatible", "version"], "--compatible version with --engine onnx"),
        (["--keep-fp32", "a", "--keep-fp32", "b"], "--keep-fp32 a b with --precision fp32"),
        (["--keep-slower"], "try: --precision int8, or leave --keep-slower out"),
        (["--keep-slower", "--precision", "fp16"], "--keep-slower with --precision fp16"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", str(TRAINED), "--out", str(tmp_path / "bundle"), *options]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert "\n" not in err.strip()
    assert out == ""
    assert not list(tmp_path.iterdir())


def test_the_usual_batch_may_be_stated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--batch", "1", "--sequences", "1", "--json"]
    assert run(["export", str(TRAINED), "--out", str(tmp_path / "bundle"), *options]) == 0
    assert '"precision": "fp32"' in capsys.readouterr().out

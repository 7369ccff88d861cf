"""On a narrow terminal nothing of a table is cut off."""

from __future__ import annotations

import pytest

from stpl_deploy.cli.reports.output import print_table

COLUMNS = ["lead", "max error", "tolerance", "change of MSE", ""]
ROWS = [[str(n), f"{n * 1.2345e-7:.1e}", "1.4e-06", f"{-n * 1e-8:+.1e}", "ok"] for n in (1, 20)]


@pytest.mark.parametrize("width", [20, 40, 60, 100])
def test_every_cell_is_there(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_table("Closed loop", COLUMNS, ROWS)
    out = capsys.readouterr().out
    assert "…" not in out
    for cell in (cell for row in ROWS for cell in row):
        assert cell in out
    for word in " ".join(COLUMNS).split():
        assert word in out
    assert max(map(len, out.splitlines())) <= width


def test_a_wide_one_is_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    print_table("Closed loop", COLUMNS, ROWS)
    assert "│ 20" in capsys.readouterr().out

"""The measured table of docs/ensembles.md is that of the file that the benchmark wrote."""

from __future__ import annotations

from benchmarks import ensembles, results_table


def test_the_page_is_up_to_date() -> None:
    page = results_table.page_with(ensembles.table(), ensembles.PAGE, ensembles.BEGIN)
    assert page == ensembles.PAGE.read_text(), "ensembles.py --write"

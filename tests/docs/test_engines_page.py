"""The measured table of docs/engines.md is that of the file that the benchmark wrote."""

from __future__ import annotations

from benchmarks import peers_table


def test_the_page_is_up_to_date() -> None:
    assert peers_table.page() == peers_table.PAGE.read_text(), "peers_table.py --write"

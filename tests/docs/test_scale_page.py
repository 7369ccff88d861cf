"""The measured tables of docs/scale.md are those of the files that the benchmarks wrote."""

from __future__ import annotations

from benchmarks import scale_table


def test_the_page_is_up_to_date() -> None:
    assert scale_table.page() == scale_table.PAGE.read_text(), "scale_table.py --write"

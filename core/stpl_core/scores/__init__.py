"""Scores of forecasts: sums that add up over batches and machines, and what follows from them.

`images` scores one picture at a time, `events` counts what crosses a threshold, `spectrum` shows
blur; `accumulator` holds their sums. docs/evaluate.md defines each score.
"""

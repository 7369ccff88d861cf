"""Polygraphy: engines compared, golden files for its command line, cases for `debug reduce`.

Only `golden` imports torch: `verify --against` runs where a bundle runs, with the extra
`polygraphy`. What is written down of PyTorch's results comes from `reference.npz`.
"""

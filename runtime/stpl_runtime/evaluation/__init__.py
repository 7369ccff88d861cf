"""A forecaster's scores per lead time, beside those of baselines."""

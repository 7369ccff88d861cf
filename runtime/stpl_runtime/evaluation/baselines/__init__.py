"""The baselines of `evaluate`, each a module; `stpl_runtime.evaluation.baseline` says how."""

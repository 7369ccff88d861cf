"""What `import stpl_deploy` gives: models, forecasts, streams, training, in Python."""

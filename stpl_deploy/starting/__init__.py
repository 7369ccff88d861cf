"""`stpl-deploy new`: from a source that somebody has to a folder that runs it."""

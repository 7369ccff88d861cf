"""`stpl-deploy backfill`: every complete window of an archive becomes a nowcast in one store."""

"""The page where a nowcast is watched; `server` runs it, `hub` is notified of what happens."""

"""Ensembles: members that spread as the chances of a nowcast say, and look like its field."""

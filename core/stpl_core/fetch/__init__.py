"""Fetching public files: resumable, checked, whole or not there at all."""

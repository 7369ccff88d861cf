"""Longer reports of verbs, as text."""

"""Connections: addresses, trying again, and whether the other side is there."""

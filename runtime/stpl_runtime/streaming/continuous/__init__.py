"""Continuous batching: one call for all streams whose nowcasts are due, after a bounded wait."""

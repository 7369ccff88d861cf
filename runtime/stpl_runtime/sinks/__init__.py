"""Sinks of nowcasts, one module each."""

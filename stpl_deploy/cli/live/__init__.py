"""What `stream` and `serve` share: their options, and how both run."""

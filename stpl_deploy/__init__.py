"""stpl-deploy: from training a spatiotemporal model to a live nowcast on an edge device."""

__version__ = "0.1.0"

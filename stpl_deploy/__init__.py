"""stpl-deploy: from training a spatiotemporal model to a live nowcast on an edge device."""

from stpl_core import __version__ as __version__

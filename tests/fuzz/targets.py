"""What the campaign changes and gives to the product: each target prepares, then tries one seed.

Heavy libraries are imported by the target that needs them.
"""

from __future__ import annotations

from functools import partial

from tests.fuzz.attempts import Prepare
from tests.fuzz.bundle_targets import graphs, manifests, references, states
from tests.fuzz.file_targets import READERS, grib_messages, reader, zarr_stores
from tests.fuzz.http_targets import page_requests, server_answers
from tests.fuzz.message_targets import messages
from tests.fuzz.train_targets import checkpoints, parts, recipes, runs

TARGETS: dict[str, Prepare] = {
    "manifests": manifests,
    "graphs": graphs,
    "references": references,
    "states": states,
    "runs": runs,
    "recipes": recipes,
    "parts": parts,
    "checkpoints": checkpoints,
    "messages": messages,
    "zarr": zarr_stores,
    "page requests": page_requests,
    "server answers": server_answers,
    "grib": grib_messages,
    **{f"reader {name}": partial(reader, name) for name in READERS},
}

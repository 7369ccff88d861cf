"""A nowcast of ours, blended with a weather model by pysteps.

    pip install pysteps
    python examples/blend_with_pysteps.py BUNDLE RADAR WEATHER OUT

BUNDLE is a bundle of rain rates, or pretrained:radar-nowcast; RADAR a folder or file of frames in
mm/h; WEATHER a .npy of (K, m, n), the rain rates in mm/h that a weather model has for the next K
steps on the same pixels. OUT is written: the blended rain rates, .npy of (K, m, n).

The first third is the nowcast alone, the last third the weather model alone, and between them the
one gives way to the other. Where rain is strong in either of them, saliency keeps more of it.
"""

from __future__ import annotations

import sys

import numpy as np
import pysteps

import stpl_deploy as stpl
from stpl_deploy.integrations.pysteps import NAME, register

bundle, radar, weather, out = sys.argv[1:5]

# The newest frames, (T, m, n); NaN where the radar saw nothing.
frames = stpl.open_frames(radar)
rain = frames["frames"].values[:, 0].astype(float)
minutes = frames.attrs["cadence_s"] / 60
metadata = {"unit": "mm/h", "transform": None, "threshold": 0.1, "zerovalue": 0.0}
metadata |= {"accutime": minutes, "zr_a": 200.0, "zr_b": 1.6}

# From here on the bundle is a method of pysteps like its own; it finds the motion by itself.
register(bundle)
nowcast = pysteps.nowcasts.get_method(NAME)
model_rain = np.load(weather)
steps = len(model_rain)
print("nowcast alone:", nowcast(rain, None, steps, metadata=metadata).shape)

# Any blending of pysteps takes it by its name, as it takes "steps" or "extrapolation".
blend = pysteps.blending.get_method("salient_blending")
blended = blend(
    rain,
    metadata,
    None,
    steps,
    minutes,
    NAME,
    precip_nwp=model_rain,
    precip_nwp_metadata=metadata,
    start_blending=minutes * (steps // 3),
    end_blending=minutes * (steps - steps // 3),
    nowcast_kwargs={"metadata": metadata},
)
np.save(out, blended)
print("blended:", blended.shape, "mm/h, at most", round(float(blended.max()), 1))

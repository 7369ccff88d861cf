"""From frames to a picture of the next hour, and then live: stpl-deploy with xarray, cell by cell.

The cells (`# %%`) open in Jupyter, VS Code and Spyder; as a script it runs from start to end:

    python examples/xarray_tour.py BUNDLE FRAMES PICTURE

BUNDLE is a bundle or pretrained:radar-nowcast; FRAMES a folder or file of frames.
"""

# %% The bundle, the frames, and where the picture goes
from __future__ import annotations

import sys

import stpl_deploy as stpl

bundle, frames, picture = sys.argv[1:4]

# %% Load: an engine runs the model, without PyTorch
model = stpl.load(bundle)
print(model.bundle.manifest.model.name, model.bundle.manifest.context, "frames in")

# %% Predict: the newest frames of the folder, forecast, in physical units
nowcast = model.predict(frames)["nowcast"]  # (time, y, x)
print(nowcast)

# %% Plot every lead time with xarray
lead = nowcast.dims[0]
grid = nowcast.plot(col=lead, col_wrap=4, robust=True)
grid.fig.savefig(picture)

# %% Stream: the same folder, live; each frame that arrives becomes a nowcast
with model.stream(frames, policy="pace", max_nowcasts=3) as live:
    for made in live:
        print(made.issue_time, "largest:", float(made.frames.max()), made.units)

# %% Close what the engine holds
model.close()

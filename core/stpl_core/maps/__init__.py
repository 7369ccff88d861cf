"""The map under the frames: Natural Earth's lines and cities, placed on a frame's own pixels."""

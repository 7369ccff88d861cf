"""Archives of frames, cut into windows: what a model is trained on and what it is judged on."""

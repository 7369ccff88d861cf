"""The closed-loop check of a bundle on this machine, without PyTorch."""

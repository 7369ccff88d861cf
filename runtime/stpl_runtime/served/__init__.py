"""Bundles that a Triton server runs: our client's side, and the model that its Python backend runs.

address.py   grpc://HOST:8001/NAME
client.py    calls with a deadline, and what a failed one means
session.py   keeps the `Session` protocol: `--engine triton:grpc://HOST:8001`
model.py     runs in the server's Python backend
"""

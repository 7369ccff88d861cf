"""Streams shared out among many processes: `stream kafka://HOST/TOPIC --group NAME`."""

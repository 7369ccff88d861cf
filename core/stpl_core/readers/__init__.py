"""Readers, one module each, and what joins their pieces into a dataset."""

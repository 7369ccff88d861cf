"""The newest nowcast for GIS programs: WMS 1.3.0, XYZ tiles, and OGC API - EDR at a position."""

"""Depth of a clip: `DepthVideo`, its files, and how good it is."""

"""Depth-warped reprojection: pixels drawn where a new camera sees them."""

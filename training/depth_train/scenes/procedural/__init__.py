"""Procedural scenes with exact depth: primitives drawn by lot and ray-cast."""

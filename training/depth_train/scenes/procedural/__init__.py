"""Procedural scenes with exact depth: primitives drawn at random and ray-cast."""

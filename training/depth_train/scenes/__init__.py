"""Scenes that are made, not filmed."""

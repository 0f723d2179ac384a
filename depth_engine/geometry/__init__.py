"""The cameras of a clip, and its depth in their unit."""

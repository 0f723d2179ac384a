"""Novel views of a clip by its depth."""

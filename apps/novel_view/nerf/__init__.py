"""The clip as a data set for nerfstudio, and NeRFs trained on it."""

"""Clips from data sets on disk and from scenes, cut and recoloured for training."""

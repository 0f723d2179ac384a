"""Scenes made of real models: textured meshes placed at true size, lit, and seen by ray casting."""

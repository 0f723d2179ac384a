"""Stable Video Diffusion, fine-tuned for depth."""

"""Frames in and out: probe, read, write, shots; the only part that talks to ffmpeg."""

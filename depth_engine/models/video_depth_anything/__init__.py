"""Video Depth Anything: an image encoder (DINOv2), and a head that also looks along time."""

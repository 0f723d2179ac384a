"""Training data, losses and the fine-tuning loop behind ``depth-train``."""

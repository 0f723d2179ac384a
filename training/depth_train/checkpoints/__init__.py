"""What a training run writes, and how it goes on from it."""

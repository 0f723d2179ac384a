"""What moves the weights, and which."""

"""What can be trained: where each task starts, what a step sees, its losses."""

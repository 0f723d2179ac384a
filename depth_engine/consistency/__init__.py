"""What makes depth steady, whichever network it comes from."""

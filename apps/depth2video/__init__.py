"""A clip's depth drives a new clip: depth-controlled video generation."""

"""What a run is to do: everything checked before anything heavy loads."""

"""A clip from other cameras: `novel-view render` and `stereo`."""

"""One resumable run: work folder, lock, atomic outputs, background threads."""

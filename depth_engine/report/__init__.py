"""The report page and the colours of depth."""

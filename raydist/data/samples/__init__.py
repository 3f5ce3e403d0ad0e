"""Training samples: their line formats, where they come from, and access to them by row."""

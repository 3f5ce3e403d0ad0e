"""What `search` shows of its results."""

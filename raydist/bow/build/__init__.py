"""Building an index, appending to it, deleting from it."""

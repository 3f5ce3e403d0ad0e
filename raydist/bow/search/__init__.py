"""Searching an index: exact top-k rankings, and why a document has its score."""

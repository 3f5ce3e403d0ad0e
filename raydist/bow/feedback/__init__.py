"""Pseudo-relevance feedback: queries that are expanded by the documents that they find first."""

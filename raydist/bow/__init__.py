"""Bag of words: building, merging and searching an index whose rankings are Lucene's."""

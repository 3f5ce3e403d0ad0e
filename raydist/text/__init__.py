"""Analysis: from a text to its index terms, as Lucene does it."""

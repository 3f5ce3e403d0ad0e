"""Embedding a corpus and searching vectors, exactly or approximately; fusion of runs."""

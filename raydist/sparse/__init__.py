"""Weights of terms by a model: documents become an index, queries its terms."""

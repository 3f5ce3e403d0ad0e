"""Rerankers and the scorer engine."""

"""Bi-encoders and cross-encoders over transformers, and their folders."""

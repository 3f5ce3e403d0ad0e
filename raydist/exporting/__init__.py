"""Hugging Face folders with model cards, and publishing them."""

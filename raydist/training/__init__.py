"""Samplers, collation, the training loop, engines and validation listeners."""

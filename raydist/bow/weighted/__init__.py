"""Pruned search of weighted terms, such as of learned sparse encoders."""

"""Neighbours, each against the real package: `pip install -e '.[dev]'` installs them."""

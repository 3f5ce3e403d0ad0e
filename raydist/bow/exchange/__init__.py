"""Indexes of other programs: CIFF in and out, BMP out, vectors of weighted terms in."""

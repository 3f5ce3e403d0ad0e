"""Multi-vector (late interaction) indexes: build, format, search."""

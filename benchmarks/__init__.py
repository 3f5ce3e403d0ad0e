"""Side-by-side comparisons with peers: `python -m benchmarks.NAME` prints a table and records it."""

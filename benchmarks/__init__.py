"""Side-by-side comparisons: `python -m benchmarks.NAME` prints a table and records it."""

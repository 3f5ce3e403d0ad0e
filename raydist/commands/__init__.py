"""The verbs of the command line: one module each, one story, read top to bottom."""

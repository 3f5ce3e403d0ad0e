"""The Python interface: the verbs as functions, results that show themselves, stages with `>>`.

An edge, like the command line: it reads and checks the same configurations, runs the same commands,
and wraps the rooms' classes. Its names are those of `import raydist`.
"""

"""Other systems beside raydist, each in an environment of its own.

NAME.txt         the environment: its packages with their versions
with_PROGRAM.py  the program that runs in it, which reads a request a line and answers it
environment.py   builds environments: `python -m benchmarks.peers`
peer.py          starts a program and talks to it
protocol.py      the program's side of that; the standard library alone
models.py        the models of the comparison in the forms that peers read
"""

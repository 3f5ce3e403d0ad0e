"""Machinery of machine code, below text and bow: the compiler, instructions, arrays."""

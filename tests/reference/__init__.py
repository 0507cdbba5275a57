"""Naive twins of the kernels, written to be obviously right, and slow: oracles for the tests."""

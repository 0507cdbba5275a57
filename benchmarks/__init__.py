"""Benchmarks against established peers: ``python -m benchmarks NAME [--quick] [--json FILE]``."""

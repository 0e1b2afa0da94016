"""Benchmarks: `python -m benchmarks NAME [--quick] [--json FILE]`. See `measure` for how a figure comes about."""

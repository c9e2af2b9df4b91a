"""Benchmarks of the library on this machine: see `python -m benchmarks --help` and docs/benchmarks.md."""

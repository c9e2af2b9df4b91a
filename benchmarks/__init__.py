"""What the library reaches on this machine: `python -m benchmarks --help`, and docs/benchmarks.md for what it means."""

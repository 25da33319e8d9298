"""The figures of the README: `make benchmark`, or `python -m tests.benchmarks`."""

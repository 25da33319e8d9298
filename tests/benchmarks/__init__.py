"""The figures of the README and the site: `make benchmark`, or `python -m tests.benchmarks`."""

"""A flow of calls, written once, driven sync, async, in batches and as a stream."""

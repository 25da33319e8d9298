"""The routing log: read, written, split, as arrays. Imports `errors` and `utils`."""

"""A policy as it stands in its file, in plain Python. Imports `errors` and `utils`; never numpy."""

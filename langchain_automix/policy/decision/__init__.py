"""A policy in the form of its file, in plain Python. Imports `errors` and `utils`, never numpy."""

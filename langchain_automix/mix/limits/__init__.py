"""Limits of a mix: money, failing models, time. Imports `models`, `flow`, `utils`, `errors`."""

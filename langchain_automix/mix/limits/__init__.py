"""Limits of a mix: money, failing models, time. Imports lower floors, and of the mix `record`."""

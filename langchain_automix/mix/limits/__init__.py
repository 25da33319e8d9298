"""Limits of a mix: money, failing models, time. Of the mix, it imports only `record`."""

"""The database that a mix learns from."""

"""Limits of a mix on money, failing models and time. Imports only `record` from the mix."""

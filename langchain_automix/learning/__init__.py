"""Learns from a mix's own traffic: observes, proves a better policy, switches, and goes back."""

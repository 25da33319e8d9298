"""Fit a policy to a log: goals, candidates, cross-fitting, risk control."""

"""From a log to a policy: goals, candidates, cross-fitting, risk control."""

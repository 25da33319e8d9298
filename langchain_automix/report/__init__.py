"""The report on a policy: what it saves, how certain that is, and every decision behind it."""

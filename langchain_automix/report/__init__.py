"""The report on a policy: what it saves, how sure that is, and every decision behind it."""

"""Checks: Runnables from a question and an answer to a `Verification`."""

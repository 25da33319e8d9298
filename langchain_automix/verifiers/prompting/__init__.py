"""Shared parts of checks that write prompts: wording, quoting, truncation, reading verdicts."""

"""What checks that write prompts share: wording, quoting, truncation, the reading of verdicts."""

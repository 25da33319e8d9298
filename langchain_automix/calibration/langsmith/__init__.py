"""LangSmith: logs from traces, experiments."""

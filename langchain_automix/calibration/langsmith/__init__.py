"""LangSmith: routing logs from traces, and experiments."""

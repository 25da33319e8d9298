"""The flow of one query, and the three ways to use a mix: runnable, chat model, middleware."""

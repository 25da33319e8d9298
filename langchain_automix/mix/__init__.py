"""One query's way, and its three doors: runnable, chat model, middleware."""

"""LangChain's chat models, seen from outside. Imports `types`, `errors`, `utils`."""

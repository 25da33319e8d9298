"""LangChain's chat models as seen from outside. Imports `types`, `errors`, `utils`."""

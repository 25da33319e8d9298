"""Plain helpers; imports `errors` only: no LangChain, no numpy."""

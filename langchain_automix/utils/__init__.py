"""Plain helpers. They import only `errors`: no LangChain, no numpy."""

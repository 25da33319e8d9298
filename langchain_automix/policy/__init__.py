"""The mathematics of the decision. Knows nothing of LangChain."""

"""The mathematics of the decision, independent of LangChain."""

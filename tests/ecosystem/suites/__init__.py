"""Other people's suites with a mix in the place of their fake chat models: see `__main__`."""

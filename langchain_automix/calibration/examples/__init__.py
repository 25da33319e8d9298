"""Examples: reading them from files, data frames and LangSmith, and their fields."""

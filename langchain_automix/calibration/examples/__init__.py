"""Examples: read from files, frames, LangSmith; their fields."""

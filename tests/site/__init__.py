"""The documentation: its code runs, its figures' commands exist, and nothing in it is stale."""

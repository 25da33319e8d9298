"""The live page: a static shell, which shows nothing before it is told."""

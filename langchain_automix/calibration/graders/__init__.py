"""Graders of answers: texts, functions, judges."""

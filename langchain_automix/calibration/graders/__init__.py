"""Graders of answers: text comparisons, functions and judges."""

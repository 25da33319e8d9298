"""The one error that bad input raises."""

from __future__ import annotations


class AutoMixError(ValueError):
    """Something given to langchain-automix cannot be used.

    The message says what was wrong, where, and what to do about it. The command line
    prints it on one line and exits with code 2.
    """

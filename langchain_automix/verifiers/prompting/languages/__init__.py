"""The words of a check in languages other than English, one module each (see `Wording.of`)."""

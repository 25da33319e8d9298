"""The words of a check in other languages than English, a module each (see `Wording.of`)."""

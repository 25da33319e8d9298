"""From a log to a solved POMDP: particles, beliefs, backward induction."""

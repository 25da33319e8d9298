"""Names of the checks from which a mix without a policy buys by price."""

from __future__ import annotations

SELF = "self"
ZERO_SHOT = "self without examples"
VERDICT_ONLY = "self without reasons"
TOKENS = "tokens"
AGREEMENT = "agreement"

SELF_CHECKS = (SELF, ZERO_SHOT, VERDICT_ONLY)
"""Ways to have a model judge its own answer, the dearest first."""

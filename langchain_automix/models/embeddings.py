"""Embeddings: their model's name, and cosine similarity."""

from __future__ import annotations

import math
from collections.abc import Sequence

from langchain_core.embeddings import Embeddings


def embeddings_name(embeddings: Embeddings) -> str | None:
    """Return the name of the model behind embeddings; None where they do not tell."""
    named = (getattr(embeddings, field, None) for field in ("model", "model_name"))
    return next((name for name in named if isinstance(name, str)), None)


def best_cosine(vectors: Sequence[Sequence[float]]) -> float | None:
    """Return the best cosine similarity of the first vector to another; None if undefined."""
    first, *others = vectors
    found = [each for other in others if (each := cosine(first, other)) is not None]
    return max(found, default=None)


def cosine(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return the cosine of two vectors, in [-1, 1]; None where one has no direction."""
    lengths = math.hypot(*one) * math.hypot(*other)
    if not lengths or not math.isfinite(lengths):
        return None
    product = math.fsum(x * y for x, y in zip(one, other, strict=True))
    return float(min(1.0, max(-1.0, product / lengths)))

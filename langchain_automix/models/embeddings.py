"""Names of embedding models, and cosine similarity."""

from __future__ import annotations

import math
from collections.abc import Sequence

from langchain_core.embeddings import Embeddings


def embeddings_name(embeddings: Embeddings) -> str | None:
    """Return the name of the embedding model; None if unknown."""
    names = (getattr(embeddings, field, None) for field in ("model", "model_name"))
    return next((name for name in names if isinstance(name, str)), None)


def best_cosine(vectors: Sequence[Sequence[float]]) -> float | None:
    """Return the best cosine similarity of the first vector to any other; None if undefined."""
    first, *others = vectors
    cosines = (cosine(first, other) for other in others)
    return max((each for each in cosines if each is not None), default=None)


def cosine(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return the cosine of two vectors, in [-1, 1]; None if one has no direction."""
    lengths = math.hypot(*one) * math.hypot(*other)
    if not lengths or not math.isfinite(lengths):
        return None
    product = math.fsum(x * y for x, y in zip(one, other, strict=True))
    return float(min(1.0, max(-1.0, product / lengths)))

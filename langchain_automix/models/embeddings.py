"""Names of embedding models, and cosine similarity."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.embeddings import Embeddings


def embeddings_name(embeddings: Embeddings) -> str | None:
    """Return the name of the embedding model, or None if unknown."""
    names = (getattr(embeddings, field, None) for field in ("model", "model_name"))
    return next((name for name in names if isinstance(name, str)), None)


def best_cosine(vectors: Sequence[Sequence[float]]) -> float | None:
    """Return the highest cosine of the first vector with any other, or None if undefined."""
    found = [each for each in cosines(vectors)[0][1:] if each is not None]
    return max(found, default=None)


def cosines(vectors: Sequence[Sequence[float]], first: int = 1) -> list[list[float | None]]:
    """Return the cosines, in [-1, 1], between the first vectors and all vectors.

    Args:
        vectors: Vectors of equal length.
        first: How many vectors, from the start, to compare with all vectors.

    Returns:
        For each of the first vectors, a list as long as `vectors`; None if either has no direction.
    """
    import numpy as np  # noqa: PLC0415  (importing the package loads no numpy)

    matrix = np.array(vectors, dtype=float)
    # Scale first, since the squares of large numbers are infinite, and those of small ones 0.
    largest = np.abs(matrix).max(axis=1, initial=0.0, keepdims=True)
    has_direction = np.isfinite(largest[:, 0]) & (largest[:, 0] > 0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scaled = matrix / largest
        unit = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
        found = np.clip(unit[:first] @ unit.T, -1.0, 1.0)
    return [
        [
            float(value) if has_direction[i] and known else None
            for value, known in zip(row, has_direction, strict=True)
        ]
        for i, row in enumerate(found)
    ]

"""The released AutoMix code, as a development-only oracle; nothing of it is in this project.

Install it beside the project, never into it: `pip install --target DIR automix-llm==1.0.3
pandas scipy`, and say `AUTOMIX_LLM=DIR`.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from typing import Any

import numpy as np

from langchain_automix.policy.data.arrays import LogArrays
from langchain_automix.policy.fitting.baselines import confidences

# The released code has these column names written into it.
_SMALL, _LARGE, _CHECK = "llama13b_f1", "llama70b_f1", "p_ver_13b"


def load() -> Any:
    """Return the modules `automix` and `pandas`, or None if they are not at hand."""
    folder = os.environ.get("AUTOMIX_LLM")
    if folder and folder not in sys.path:
        sys.path.append(folder)
    try:
        return importlib.import_module("automix"), importlib.import_module("pandas")
    except ImportError:
        return None


def frame(pandas: Any, columns: LogArrays) -> Any:
    """Return a log as the released code wants it, with its categories."""
    small, large = columns.quality[:, 0], columns.quality[:, -1]
    low = (small <= np.percentile(small, 10)) & (large <= np.percentile(large, 10))
    category = np.where(low, "HOPELESS", "UNDEFINED")
    category = np.where((small == large) & (small != 0), "GOOD", category)
    category = np.where(small < large, "NEEDY", category)
    confidence = np.nan_to_num(confidences(columns, 0))  # no valid verdict is a 0, there
    table = {_SMALL: small, _LARGE: large, _CHECK: confidence, "category": category}
    return pandas.DataFrame(table)


def candidates(modules: Any, train: LogArrays, test: LogArrays) -> list[tuple[Any, Any]]:
    """Return, for each candidate of its POMDP, who is escalated in train and in test."""
    automix, pandas = modules
    method = automix.POMDP(8)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit, new = frame(pandas, train), frame(pandas, test)
        for point in method.generate_points(fit, verifier_column=_CHECK):
            ways = [method.run(f, point, verifier_column=_CHECK) for f in (fit, new)]
            found.append(tuple(np.asarray(way, dtype=bool) for way in ways))
    return found  # type: ignore[return-value]


def utility(columns: LogArrays, escalated: Any, cost_weight: float) -> Any:
    """Return the utility of each query, the check being paid always, as that code does."""
    drawn = (columns.verdicts[:, 0] >= -1).sum(axis=1)
    check = columns.fixed_cost[:, 0] + drawn * columns.sample_cost[:, 0]
    quality = np.where(escalated, columns.quality[:, -1], columns.quality[:, 0])
    return quality - cost_weight * (columns.cost[:, 0] + check + escalated * columns.cost[:, -1])


def chosen(modules: Any, train: LogArrays, test: LogArrays, weights: list[float]) -> list[Any]:
    """Return the test utilities of its candidate with the best train utility, by weight."""
    ways = candidates(modules, train, test)
    best = []
    for weight in weights:
        worth = [utility(train, way[0], weight).mean() for way in ways]
        best.append(ways[int(np.argmax(worth))])
    return [utility(test, way[1], w) for way, w in zip(best, weights, strict=True)]

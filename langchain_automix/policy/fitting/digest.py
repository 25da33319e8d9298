"""Recognise the log that a policy was fitted to, on which the policy would look too good."""

from __future__ import annotations

import hashlib
import math

import numpy as np

from langchain_automix.policy.data.arrays import NOT_DRAWN, Floats, LogArrays, to_arrays
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.fitting_data import complete


def log_digest(log: RoutingLog) -> str:
    """Return a hash of everything that a policy learns from a log.

    It covers the models and the complete queries with their ids, qualities, costs and checks. It
    does not depend on the order of the queries, their texts or the format of the file.
    """
    columns = to_arrays(log)
    places = np.flatnonzero(columns.complete)
    ids = log.store.ids
    order = np.array(sorted(places.tolist(), key=lambda place: ids[place]), dtype=np.int64)
    rows = columns.rows(order)
    digest = hashlib.sha256()
    for text in (*log.models, "", *(ids[place] for place in order.tolist())):
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    _take_in(digest, (rows.quality, rows.cost), rows)
    for name in sorted(rows.checks):
        digest.update(name.encode("utf-8", "surrogatepass") + b"\0")
        _take_in(digest, (), rows.alone(name))
    return digest.hexdigest()[:32]


def _take_in(digest: hashlib._Hash, numbers: tuple[Floats, ...], rows: LogArrays) -> None:
    """Add numbers and the findings of the first check to a digest."""
    for each in (*numbers, rows.score, rows.fixed_cost, rows.sample_cost):
        # Use one representation for unknown numbers, and one for zero.
        digest.update((np.nan_to_num(each, nan=-1.0) + 0.0).astype("<f8").tobytes())
    # Queries that are left out must not change the digest, even if they have more verdicts.
    longest = int((rows.verdicts != NOT_DRAWN).sum(axis=2).max(initial=0))
    digest.update(np.ascontiguousarray(rows.verdicts[:, :, :longest]).tobytes())


def was_fitted_to(policy: Policy, log: RoutingLog) -> bool:
    """Return whether a policy was fitted to this very log.

    A policy may not record its log, if an older version wrote it or if it was fitted to arrays. It
    is then assumed to be fitted to this log if the number of queries and the mean qualities and
    costs agree.
    """
    if not policy.fit.queries or policy.models != log.models:
        return False
    if policy.fit.log is not None:
        return policy.fit.log == log_digest(log)

    columns = to_arrays(log)
    if not columns.complete.any() or not policy.fit.quality:
        return False
    data = complete(columns)
    ours = [*policy.fit.quality, *policy.fit.cost]
    means = [*data.mean(data.quality).tolist(), *data.mean(data.cost).tolist()]
    return len(data) == policy.fit.queries and all(
        math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-15) for a, b in zip(ours, means, strict=True)
    )

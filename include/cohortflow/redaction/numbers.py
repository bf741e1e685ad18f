"""Numbers: in bins, within limits, with noise."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import polars as pl

from cohortflow.redaction.actions import Treatment

__all__ = ["add_noise", "bin_numbers", "limit"]


def bin_numbers(value: pl.Expr, edges: Sequence[float]) -> pl.Expr:
    """Return the names of bins: ``< 10``, ``10 to < 20``, ``>= 20`` for the edges 10 and 20."""
    names = [f"{edge:g}" for edge in edges]
    inner = [f"{low} to < {high}" for low, high in itertools.pairwise(names)]
    labels = [f"< {names[0]}", *inner, f">= {names[-1]}"]
    number = value.cast(pl.Float64)
    found: pl.Expr = pl.lit(labels[0])
    for edge, label in zip(edges, labels[1:], strict=True):
        found = pl.when(number >= edge).then(pl.lit(label)).otherwise(found)
    # NaN is no number and lies in no bin.
    return pl.when(number.is_not_null() & number.is_not_nan()).then(found)


def limit(value: pl.Expr, treatment: Treatment) -> pl.Expr:
    """Return the numbers, those beyond a limit as the limit."""
    return value.clip(treatment.at_least, treatment.at_most)


def add_noise(value: pl.Expr, fraction: pl.Expr, treatment: Treatment, dtype: pl.DataType) -> pl.Expr:
    """Return the numbers, each changed by a fraction of the treatment's amount, within its limits.

    Args:
        value: The numbers.
        fraction: In [-1, 1).
        treatment: Amount and limits.
        dtype: Type of the result; whole numbers are rounded.
    """
    changed = value.cast(pl.Float64) + fraction * (treatment.amount or 0.0)
    if dtype.is_integer():
        # Towards the true number, so that the amount is never exceeded.
        true = value.cast(pl.Float64)
        changed = true + (changed - true).cast(pl.Int64)
    return limit(changed, treatment).cast(dtype)

"""Check digits of whole columns, as Polars expressions.

A number of up to 19 digits is read as one unsigned 64-bit integer, from which four digits at a time are taken
and looked up in a table of what they add: a few integer operations per value instead of string operations
per digit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, reduce
from types import MappingProxyType
from typing import Final

import polars as pl

from cohortflow.patterns.definition import Algorithm

__all__ = ["check_digit_holds"]

_DIGITS: Final = 19
"""Digits that an unsigned 64-bit integer holds in any case."""
_GROUP: Final = 4
"""Digits looked up at once: even, so that weights of two kinds fall on the same places of each group."""
_GROUPS: Final = -(-_DIGITS // _GROUP)
_ROTATIONS: Final = 5
"""Of a pentagon: elements 0 to 4 of D5; from 5 on they are reflections."""

# Permutation of Verhoeff's method; its eighth power is the identity.
_PERMUTATION: Final = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)

# Letters in front of LOINC's parts, answers, groups and answer lists count as their ASCII code minus 48 in a
# Luhn sum that goes on over them: by prefix, the sum for an even and for an odd number of digits before the
# check digit.
_LOINC_PREFIXES: Final = MappingProxyType({"LA": (35, 28), "LG": (38, 34), "LL": (39, 39), "LP": (38, 43)})

_VIN_LETTERS: Final = MappingProxyType(
    dict(zip("ABCDEFGHJKLMNPRSTUVWXYZ", "12345678123457923456789", strict=True))
)
_VIN_WEIGHTS: Final = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
_VIN_CHECK: Final = 8

# SNOMED CT: partitions of the short format (core) and of the long format (extension).
_SHORT_PARTITIONS: Final = ("00", "01", "02", "03", "04", "05")
_LONG_PARTITIONS: Final = ("10", "11", "12", "13", "14", "15", "16")


def check_digit_holds(algorithm: Algorithm, value: pl.Expr) -> pl.Expr:
    """Return whether the check digit of each value is right.

    Args:
        algorithm: The algorithm.
        value: Values in normal form: digits alone; with letters where the algorithm has them.

    Returns:
        Boolean, under the name of ``value``; false for null and for what is no such number.
    """
    return value.is_not_null() & _ALGORITHMS[algorithm](value).fill_null(value=False)


def _luhn_holds(value: pl.Expr) -> pl.Expr:
    """Return whether numbers of up to 19 digits end in their Luhn digit."""
    return _luhn_sum(_to_number(value)) % 10 == 0


def _npi_holds(value: pl.Expr) -> pl.Expr:
    """Return whether 10-digit numbers end in the Luhn digit of 80840 and the first nine."""
    # The prefix adds 24 to the sum of any number.
    return (_luhn_sum(_to_number(value)) + 24) % 10 == 0


def _loinc_holds(value: pl.Expr) -> pl.Expr:
    """Return whether LOINC codes, such as ``2345-7`` or ``LA6576-8``, have the right check digit."""
    prefix = value.str.extract("^(L[AGLP])", 1)
    digits = value.str.extract("^(?:L[AGLP])?([0-9]{1,18})-[0-9]$", 1)
    check = value.str.slice(-1)
    odd = digits.str.len_bytes() % 2 == 1
    offset = pl.lit(0, pl.UInt8)
    for letters, (even_sum, odd_sum) in _LOINC_PREFIXES.items():
        sums = pl.when(odd).then(pl.lit(odd_sum, pl.UInt8)).otherwise(pl.lit(even_sum, pl.UInt8))
        offset = pl.when(prefix == letters).then(sums).otherwise(offset)
    return (_luhn_sum(_to_number(digits + check)) + offset) % 10 == 0


def _verhoeff_holds(value: pl.Expr) -> pl.Expr:
    """Return whether numbers of up to 19 digits end in their Verhoeff digit.

    The method multiplies the permuted digits in D5, the group of a pentagon's rotations (0 to 4) and
    reflections (5 to 9). Rotations add up, with the sign turned by each reflection before them, so that the
    product is a sum, and no step has to wait for the one before.
    """
    number = _to_number(value)
    length = value.str.len_bytes().cast(pl.Int32)
    turned = pl.lit(0, pl.Int32)
    total = pl.lit(0, pl.Int32)
    for group in range(_GROUPS):
        # A zero counts, and a digit that is not there does not.
        present = (length - group * _GROUP).clip(0, _GROUP)
        index = _take(number, group) + present.cast(pl.UInt32) * 10**_GROUP
        code = _look_up(_verhoeff_table(group % 2), index)
        total += (1 - 2 * (turned % 2)) * (code % _ROTATIONS)
        turned += code // _ROTATIONS
    return (total % _ROTATIONS == 0) & (turned % 2 == 0)


def _sctid_holds(value: pl.Expr) -> pl.Expr:
    """Return whether SNOMED CT identifiers have the right check digit and a partition that fits."""
    length = value.str.len_bytes()
    partition = value.str.slice(-3, 2)
    # The long format has a namespace of seven digits and at least one digit for the item.
    fits = partition.is_in(list(_SHORT_PARTITIONS)) | (
        partition.is_in(list(_LONG_PARTITIONS)) & (length >= 11)  # noqa: PLR2004 - 1 + 7 + 2 + 1 digits
    )
    return fits & length.is_between(6, 18) & (value.str.slice(0, 1) != "0") & _verhoeff_holds(value)


def _dea_holds(value: pl.Expr) -> pl.Expr:
    """Return whether DEA registration numbers, two characters and seven digits, end in their check digit."""
    number = _to_number(value.str.slice(2))
    digits = [_digit(number, 6 - place) for place in range(7)]
    total = digits[0] + digits[2] + digits[4] + 2 * (digits[1] + digits[3] + digits[5])
    return (value.str.len_bytes() == 9) & (total % 10 == digits[6])  # noqa: PLR2004 - length of the number


def _gs1_holds(value: pl.Expr) -> pl.Expr:
    """Return whether GS1 keys (GTIN, GLN, SSCC) end in their check digit."""
    number = _to_number(value)
    return (
        _sum([_look_up(_weight_table((1, 3, 1, 3)), _take(number, group)) for group in range(_GROUPS)]) % 10
        == 0
    )


def _vin_holds(value: pl.Expr) -> pl.Expr:
    """Return whether 17-character vehicle numbers have their check digit, or X, in the ninth place."""
    spelled = value.str.replace_many(list(_VIN_LETTERS), list(_VIN_LETTERS.values()))
    number = _to_number(spelled)
    weights = (*reversed(_VIN_WEIGHTS), 0, 0, 0)
    tables = [_weight_table(weights[at : at + _GROUP]) for at in range(0, len(weights), _GROUP)]
    total = _sum([_look_up(table, _take(number, group)) for group, table in enumerate(tables)])
    remainder = total % 11
    expected = pl.when(remainder == 10).then(pl.lit("X")).otherwise(remainder.cast(pl.String))  # noqa: PLR2004
    return (value.str.len_bytes() == len(_VIN_WEIGHTS)) & (value.str.slice(_VIN_CHECK, 1) == expected)


def _to_number(value: pl.Expr) -> pl.Expr:
    digits = pl.when(value.str.contains(f"^[0-9]{{1,{_DIGITS}}}$")).then(value)
    return digits.str.to_integer(strict=False, dtype=pl.UInt64)


def _digit(number: pl.Expr, position: int) -> pl.Expr:
    """Return the digit at a position from the right, from 0."""
    return ((number // pl.lit(10**position, pl.UInt64)) % pl.lit(10, pl.UInt64)).cast(pl.UInt32)


def _take(number: pl.Expr, group: int) -> pl.Expr:
    """Return four digits of a number; group 0 has the last ones."""
    return ((number // pl.lit(10 ** (_GROUP * group), pl.UInt64)) % pl.lit(10**_GROUP, pl.UInt64)).cast(
        pl.UInt32
    )


def _look_up(table: pl.Series, index: pl.Expr) -> pl.Expr:
    return pl.lit(table).gather(index)


def _luhn_sum(number: pl.Expr) -> pl.Expr:
    return _sum([_look_up(_luhn_table(), _take(number, group)) for group in range(_GROUPS)])


def _sum(terms: list[pl.Expr]) -> pl.Expr:
    return reduce(lambda total, term: total + term, terms)


def _digits_of(number: int, count: int = _GROUP) -> list[int]:
    """Return the digits of a number from the right."""
    return [number // 10**place % 10 for place in range(count)]


@cache
def _luhn_table() -> pl.Series:
    return pl.Series(
        [
            ones + tens * 2 % 10 + tens // 5 + hundreds + thousands * 2 % 10 + thousands // 5
            for ones, tens, hundreds, thousands in map(_digits_of, range(10**_GROUP))
        ],
        dtype=pl.Int32,
    )


@cache
def _weight_table(weights: tuple[int, ...]) -> pl.Series:
    """Return the weighted sum of four digits, by the weights of the places from the right."""
    sums = [
        sum(digit * weight for digit, weight in zip(_digits_of(number), weights, strict=True))
        for number in range(10**_GROUP)
    ]
    return pl.Series(sums, dtype=pl.Int32)


@cache
def _verhoeff_table(parity: int) -> pl.Series:
    """Return the product in D5 of a group's permuted digits, for 0 to 4 digits that are there.

    Args:
        parity: Whether the group is an odd one: the permutation has a period of two groups.
    """
    powers = [list(range(10))]
    for _ in range(2 * _GROUP):
        powers.append([_PERMUTATION[item] for item in powers[-1]])
    codes = []
    for present in range(_GROUP + 1):
        for number in range(10**_GROUP):
            rotation, reflected = 0, 0
            for place, digit in enumerate(_digits_of(number, present)):
                code = powers[parity * _GROUP + place][digit]
                rotation += -(code % _ROTATIONS) if reflected else code % _ROTATIONS
                reflected ^= code // _ROTATIONS
            codes.append(rotation % _ROTATIONS + _ROTATIONS * reflected)
    return pl.Series(codes, dtype=pl.Int32)


_ALGORITHMS: Final[Mapping[Algorithm, Callable[[pl.Expr], pl.Expr]]] = MappingProxyType(
    {
        Algorithm.LUHN: _luhn_holds,
        Algorithm.NPI: _npi_holds,
        Algorithm.VERHOEFF: _verhoeff_holds,
        Algorithm.SCTID: _sctid_holds,
        Algorithm.LOINC: _loinc_holds,
        Algorithm.DEA: _dea_holds,
        Algorithm.GS1: _gs1_holds,
        Algorithm.VIN: _vin_holds,
    }
)

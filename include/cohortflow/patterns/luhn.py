"""The Luhn digit of one number, without the data library that the checks of whole columns need."""

from __future__ import annotations

__all__ = ["luhn_digit"]


def luhn_digit(number: str) -> int:
    """Return the check digit that completes a number (ISO/IEC 7812-1, annex B).

    Args:
        number: ASCII digits, without the check digit.
    """
    total = sum(
        sum(divmod(int(digit) * (1 + place % 2), 10)) for place, digit in enumerate(reversed(number), start=1)
    )
    return -total % 10

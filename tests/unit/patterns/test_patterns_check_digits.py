"""Check digits: the standards' own examples, and slow implementations written from the algorithms' texts."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohortflow.patterns import Algorithm, check_digit_holds, luhn_digit

DIGITS = "0123456789"


def holds(algorithm, *values):
    frame = pl.DataFrame({"value": list(values)}, schema={"value": pl.String})
    result = frame.select(check_digit_holds(Algorithm(algorithm), pl.col("value")))
    assert result.columns == ["value"]
    return result.to_series().to_list()


@pytest.mark.parametrize(
    ("algorithm", "value"),
    [
        ("luhn", "79927398713"),  # the example of the patent's descriptions
        ("luhn", "4111111111111111"),
        ("npi", "1234567893"),  # CMS, Requirements for NPI check digit
        ("verhoeff", "2363"),
        ("verhoeff", "758722"),
        ("verhoeff", "1428570"),
        # SNOMED CT Technical Implementation Guide, SCTID examples
        ("sctid", "100005"),
        ("sctid", "100014"),
        ("sctid", "100022"),
        ("sctid", "1290023401015"),
        ("sctid", "1290000001117"),
        ("sctid", "9940000001029"),
        ("sctid", "10989121108"),
        ("sctid", "1290989121103"),
        ("sctid", "999999990989121104"),
        ("loinc", "2345-7"),
        ("loinc", "4548-4"),
        ("loinc", "12345-5"),  # LOINC Users' Guide, annex C
        ("loinc", "LA6576-8"),
        ("loinc", "LA28865-6"),
        ("loinc", "LP29684-5"),
        ("loinc", "LP7839-6"),
        ("loinc", "LG51018-6"),
        ("loinc", "LL361-7"),
        ("loinc", "LL1162-8"),
        ("gs1", "614141000036"),
        ("gs1", "4006381333931"),
        ("gs1", "106141412345678908"),
        ("vin", "1M8GDM9AXKP042788"),
        ("vin", "11111111111111111"),
    ],
)
def test_published_examples(algorithm, value):
    assert holds(algorithm, value) == [True]


def slow_luhn(number):
    total = 0
    for position, digit in enumerate(reversed(number)):
        value = int(digit) * (2 if position % 2 else 1)
        total += sum(map(int, str(value)))
    return total % 10 == 0


@given(st.text(DIGITS, min_size=1, max_size=18))
def test_the_digit_of_one_number_is_the_one_that_columns_are_checked_for(body):
    assert holds("luhn", *(body + str(digit) for digit in range(10))) == [
        digit == luhn_digit(body) for digit in range(10)
    ]


def slow_loinc(number):
    """Steps 2 to 8 of the Users' Guide, on the number before the hyphen."""
    body, check = number.split("-")
    odd, even = body[::-1][0::2], body[::-1][1::2]
    digits = even + str(int(odd) * 2)
    return (-sum(map(int, digits))) % 10 == int(check)


def multiply(a, b):
    """Multiply in the dihedral group of the pentagon: 0-4 rotations, 5-9 reflections, as permutations."""

    def act(element, corner):
        return (element + corner) % 5 if element < 5 else (element - corner) % 5

    images = [act(a, act(b, corner)) for corner in range(5)]
    return next(e for e in range(10) if [act(e, corner) for corner in range(5)] == images)


PRODUCTS = [[multiply(a, b) for b in range(10)] for a in range(10)]


def slow_verhoeff(number):
    check = 0
    for position, digit in enumerate(reversed(number)):
        permuted = int(digit)
        for _ in range(position):
            permuted = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[permuted]
        check = PRODUCTS[check][permuted]
    return check == 0


def slow_gs1(number):
    return sum(int(d) * (3 if i % 2 else 1) for i, d in enumerate(reversed(number))) % 10 == 0


def slow_dea(number):
    a, b, c, d, e, f, check = map(int, number[2:])
    return (a + c + e + 2 * (b + d + f)) % 10 == check


def slow_vin(number):
    values = dict(zip("ABCDEFGH", range(1, 9), strict=True)) | dict(zip("JKLMN", range(1, 6), strict=True))
    values |= {"P": 7, "R": 9} | dict(zip("STUVWXYZ", range(2, 10), strict=True))
    weights = [8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2]
    total = sum(weights[i] * (values[c] if c in values else int(c)) for i, c in enumerate(number))
    return "0123456789X"[total % 11] == number[8]


def numbers(low, high):
    return st.text(DIGITS, min_size=low, max_size=high)


SLOW = {
    "luhn": (slow_luhn, numbers(1, 19)),
    "npi": (lambda number: slow_luhn("80840" + number), numbers(10, 10)),
    "verhoeff": (slow_verhoeff, numbers(1, 19)),
    "gs1": (slow_gs1, numbers(1, 18)),
    "dea": (slow_dea, numbers(7, 7).map(lambda digits: "AB" + digits)),
    "loinc": (slow_loinc, st.builds(lambda body, check: f"{body}-{check}", numbers(1, 8), numbers(1, 1))),
    "vin": (slow_vin, st.text("ABCDEFGHJKLMNPRSTUVWXYZ" + DIGITS, min_size=17, max_size=17)),
}


@pytest.mark.parametrize("algorithm", SLOW)
def test_they_equal_slow_implementations(algorithm):
    slow, values = SLOW[algorithm]

    @settings(max_examples=60, deadline=None)
    @given(st.lists(values, min_size=20, max_size=60))
    def check(column):
        # Of each value all its neighbours in the last digit: one of them is right.
        if algorithm != "vin":
            column = [value[:-1] + digit for value in column for digit in DIGITS]
        else:
            column = [value[:8] + digit + value[9:] for value in column for digit in DIGITS + "X"]
        assert holds(algorithm, *column) == [slow(value) for value in column]

    check()


def complete(algorithm, body):
    """Append the check digit to a body."""
    found = [body + digit for digit in DIGITS]
    return next(value for value, right in zip(found, holds(algorithm, *found), strict=True) if right)


@pytest.mark.parametrize("algorithm", ["luhn", "verhoeff", "gs1"])
@settings(max_examples=40, deadline=None)
@given(body=numbers(5, 17))
def test_every_single_wrong_digit_is_caught(algorithm, body):
    right = complete(algorithm, body)
    wrong = [
        right[:place] + digit + right[place + 1 :]
        for place in range(len(right))
        for digit in DIGITS
        if digit != right[place]
    ]
    assert not any(holds(algorithm, *wrong))


@settings(max_examples=60, deadline=None)
@given(body=numbers(5, 17))
def test_verhoeff_catches_every_transposition_of_neighbours(body):
    right = complete("verhoeff", body)
    swapped = {right[:i] + right[i + 1] + right[i] + right[i + 2 :] for i in range(len(right) - 1)} - {right}
    assert not any(holds("verhoeff", *sorted(swapped)))


@settings(max_examples=60, deadline=None)
@given(body=numbers(5, 17))
def test_luhn_catches_every_transposition_of_neighbours_but_of_0_and_9(body):
    right = complete("luhn", body)
    for i in range(len(right) - 1):
        pair = right[i : i + 2]
        swapped = right[:i] + pair[::-1] + right[i + 2 :]
        assert holds("luhn", swapped) == [pair in {"09", "90"} or swapped == right]


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_what_is_no_number_has_no_right_check_digit(algorithm):
    strange = [None, "", "x", "-5", "+18", "1e3", " 18", "12345678901234567890123", "١٨"]
    assert holds(algorithm, *strange) == [False] * len(strange)


@pytest.mark.parametrize(
    "value",
    [
        "1290989121000119103",  # 19 digits
        "100121",  # an extension's partition in the short format
        "0100005",
        "10005",
    ],
)
def test_a_right_verhoeff_digit_alone_makes_no_sctid(value):
    body = value[:-1]
    assert not any(holds("sctid", *(body + digit for digit in DIGITS)))

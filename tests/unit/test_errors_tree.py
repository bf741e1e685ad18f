"""The exception tree: its drawing is true, its members survive a trip between processes."""

import inspect
import pickle
import re

import pytest

from cohortflow import errors
from cohortflow.errors import CohortflowError, TransientSourceError

KINDS = [getattr(errors, name) for name in errors.__all__]


def test_the_drawing_is_the_tree():
    drawn, stack = {}, []
    for line in errors.__doc__.splitlines():
        if match := re.match(r"^    ([│├└─ ]*)([A-Z]\w+Error)\b", line):
            depth = len(match[1]) // 4
            stack = [*stack[:depth], match[2]]
            drawn[match[2]] = stack[-2] if depth else "Exception"
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in KINDS}


def test_all_lists_every_error_sorted():
    defined = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert errors.__all__ == sorted(defined)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling(kind):
    error = pickle.loads(pickle.dumps(kind("wrong", remedy="mend it", place="a.yaml:3")))
    assert type(error) is kind
    assert str(error) == "a.yaml:3: wrong\n  -> mend it"


def test_a_wait_that_the_server_asked_for_survives_pickling():
    error = pickle.loads(pickle.dumps(TransientSourceError("busy", retry_after=7)))
    assert error.retry_after == 7


@pytest.mark.parametrize(
    ("details", "text"),
    [
        ({}, "wrong"),
        ({"place": "a:1"}, "a:1: wrong"),
        ({"remedy": "mend it"}, "wrong\n  -> mend it"),
    ],
)
def test_text(details, text):
    assert str(CohortflowError("wrong", **details)) == text


def test_exit_codes_tell_bad_input_from_failure():
    codes = {kind.__name__: kind.exit_code for kind in KINDS}
    assert {name for name, code in codes.items() if code == 2} == {
        kind.__name__ for kind in KINDS if issubclass(kind, errors.InputError | errors.ConfigurationError)
    }
    assert set(codes.values()) == {1, 2}

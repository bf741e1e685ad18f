"""Counting and checking NDJSON in chunks."""

import gzip
import hashlib
import itertools
import json

import httpx
import pytest
from connectors_doubles import Chunks, outcome
from hypothesis import given
from hypothesis import strategies as st

from cohortflow.connectors.bulk.transfer import Body, FileMeter, OutcomeMeter
from cohortflow.connectors.transport.outcome import Issue, describe_issues, parse_outcome
from cohortflow.errors import ExportRejectedError

lines = st.lists(st.sampled_from([b'{"a": 1}', b"", b"  ", b"\r", b'{"b": "\xc3\xa9"}']), max_size=8)


@given(lines=lines, ended=st.booleans(), cuts=st.lists(st.integers(0, 80), max_size=6))
def test_lines_are_counted_wherever_chunks_break(lines, ended, cuts):
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    meter = FileMeter()
    for start, end in itertools.pairwise(places):
        meter.update(data[start:end])
    assert meter.lines == sum(bool(line.strip()) for line in data.split(b"\n"))
    assert meter.bytes == len(data)
    assert meter.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.anyio
async def test_compressed_zeros_come_out_in_bounded_chunks():
    body = gzip.compress(b" " * (10 << 20) + b"{}")
    response = httpx.Response(200, stream=Chunks(body), request=httpx.Request("GET", "https://x.example.org"))
    sizes = [len(chunk) async for chunk in Body("x.example.org").read(response)]
    assert sum(sizes) == (10 << 20) + 2
    assert max(sizes) <= 1 << 20


def test_endless_line_in_an_error_file_is_refused():
    meter = OutcomeMeter({}, ())
    meter.update(b"x" * (1 << 20))
    with pytest.raises(ExportRejectedError):
        meter.update(b"x")


def test_issues_hold_codes_only():
    body = json.dumps(outcome("error", "processing", details="59108"))
    assert parse_outcome(body) == (Issue("error", "processing", ("59108",)),)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"resourceType": "OperationOutcome", "issue": 4}']
)
def test_what_is_no_outcome_has_no_issues(body):
    assert parse_outcome(body) == ()


def test_text_in_the_place_of_a_code_is_left_out():
    body = b'{"resourceType": "OperationOutcome", "issue": [{"severity": "?", "code": "Jane Doe"}]}'
    [issue] = parse_outcome(body)
    assert issue == Issue("error")
    assert describe_issues([issue]) == ""

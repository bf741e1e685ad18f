"""Files as they should not be: each kind has one outcome, and the good lines beside it are read."""

import gzip
import json

import polars as pl
import pytest

from cohortflow.errors import MalformedDataError
from cohortflow.fhir.ndjson import Malformation, read_views
from cohortflow.fhir.views import compile_view

COLUMNS = [
    {"name": "id", "path": "id"},
    {"name": "status", "path": "status"},
    {"name": "quantity", "path": "value.ofType(Quantity).value"},
    {"name": "integer", "path": "value.ofType(integer)"},
]
VIEW = compile_view({"name": "v", "resource": "Observation", "select": [{"column": COLUMNS}]})
GOOD = b'{"resourceType":"Observation","id":"good"}'
BIG = 50_000_000


def read(tmp_path, data):
    file = tmp_path / "o.ndjson"
    file.write_bytes(data)
    frames, malformed = read_views([VIEW], [file]).collect()
    return frames["v"], malformed


def observation(body):
    return b'{"resourceType":"Observation","id":"o",' + body.encode() + b"}"


PACKED = gzip.compress(b"\n".join(GOOD.replace(b"good", b"%d" % n) for n in range(3000)))
BROKEN = {
    "half of the header": PACKED[:5],
    "the header alone": PACKED[:10],
    "half of the data": PACKED[: len(PACKED) // 2],
    "no trailer": PACKED[:-8],
    "one byte short": PACKED[:-1],
    "another checksum": PACKED[:-8] + b"abcd" + PACKED[-4:],
    "changed bytes": PACKED[:500] + b"\xff\xff\xff" + PACKED[503:],
    "something behind it": PACKED + b"junk" * 10,
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_broken_gzip_file_is_an_error_that_names_it(tmp_path, data):
    with pytest.raises(MalformedDataError, match="cannot be read to its end") as caught:
        read(tmp_path, data)
    assert caught.value.place == str(tmp_path / "o.ndjson")


@pytest.mark.parametrize("length", [0.01, 0.5, 0.99])
def test_a_truncated_zstd_file_is_an_error_that_names_it(tmp_path, length):
    whole = tmp_path / "whole"
    lines = pl.DataFrame({"resourceType": ["Observation"] * 50_000, "id": [f"o{n}" for n in range(50_000)]})
    lines.write_ndjson(whole, compression="zstd", check_extension=False)
    data = whole.read_bytes()
    assert read(tmp_path, data)[0].height == 50_000
    with pytest.raises(MalformedDataError, match="cannot be read to its end") as caught:
        read(tmp_path, data[: int(len(data) * length)])
    assert caught.value.place == str(tmp_path / "o.ndjson")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_encoding_makes_every_line_malformed(tmp_path, encoding):
    found, malformed = read(tmp_path, f"{GOOD.decode()}\n{GOOD.decode()}".encode(encoding))
    assert found.is_empty()
    assert malformed["line"].to_list() == [1, 2]
    assert set(malformed["reason"]) <= {Malformation.NOT_UTF8, Malformation.NOT_JSON}


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_byte_order_mark_belongs_to_no_value(tmp_path, end):
    found, malformed = read(tmp_path, b"\xef\xbb\xbf" + GOOD + end + GOOD + end)
    assert found["id"].to_list() == ["good", "good"]
    assert malformed.is_empty()


def test_a_line_of_50_megabytes_is_read(tmp_path):
    found, malformed = read(tmp_path, observation(f'"note":[{{"text":"{"x" * BIG}"}}]') + b"\n" + GOOD)
    assert found["id"].to_list() == ["o", "good"]
    assert malformed.is_empty()


def test_50_megabytes_that_are_no_json_are_one_malformed_line(tmp_path):
    found, malformed = read(tmp_path, b'{"resourceType":"' + b"x" * BIG + b"\n" + GOOD)
    assert found["id"].to_list() == ["good"]
    assert malformed.select("line", "reason").rows() == [(1, Malformation.NOT_JSON)]


@pytest.mark.parametrize(
    "line",
    [observation('"status":"a\x00b"'), GOOD + b"\x00", b"\x00" + GOOD, b"\x00" * 4096],
    ids=["in a text", "behind", "before", "alone"],
)
def test_nul_bytes_make_a_line_malformed(tmp_path, line):
    found, malformed = read(tmp_path, GOOD + b"\n" + line + b"\n" + GOOD)
    assert found["id"].to_list() == ["good", "good"]
    assert malformed.select("line", "reason").rows() == [(2, Malformation.NOT_JSON)]


@pytest.mark.parametrize("neighbour", [GOOD, b"oops"])
def test_of_duplicate_keys_the_first_counts(tmp_path, neighbour):
    line = observation('"status":"first","status":"second","id":"other","status":null')
    found, _ = read(tmp_path, line + b"\n" + neighbour)
    assert found.row(0)[:2] == ("o", "first")


ACCEPTED = {
    '"status":5': ("5", None, None),
    '"status":true': ("true", None, None),
    '"valueQuantity":{"value":true}': (None, 1.0, None),
    '"valueQuantity":{"value":-1.50e2}': (None, -150.0, None),
    '"valueQuantity":{}': (None, None, None),
    '"valueQuantity":null': (None, None, None),
    '"valueInteger":3.0': (None, None, 3),
    '"valueInteger":1e3': (None, None, 1000),
    '"valueInteger":3.5': (None, None, None),
    '"valueInteger":1e300': (None, None, None),
}


@pytest.mark.parametrize(("body", "values"), ACCEPTED.items(), ids=ACCEPTED)
@pytest.mark.parametrize("neighbour", [GOOD, b"oops"])
def test_what_is_read_although_it_is_odd(tmp_path, body, values, neighbour):
    found, _ = read(tmp_path, observation(body) + b"\n" + neighbour)
    assert found.row(0) == ("o", *values)


REFUSED = {
    '"valueQuantity":{"value":"1.5"}': Malformation.WRONG_JSON_TYPE,
    '"valueQuantity":{"value":[1]}': Malformation.WRONG_JSON_TYPE,
    '"valueQuantity":{"value":{}}': Malformation.WRONG_JSON_TYPE,
    '"valueQuantity":[{"value":1}]': Malformation.WRONG_JSON_TYPE,
    '"valueQuantity":[]': Malformation.WRONG_JSON_TYPE,
    '"valueQuantity":"x"': Malformation.WRONG_JSON_TYPE,
    '"valueQuantity":5': Malformation.WRONG_JSON_TYPE,
    '"valueInteger":"3"': Malformation.WRONG_JSON_TYPE,
    '"status":["final"]': Malformation.WRONG_JSON_TYPE,
    '"status":{}': Malformation.WRONG_JSON_TYPE,
    '"valueQuantity":{"value":NaN}': Malformation.NOT_JSON,
    '"valueQuantity":{"value":-Infinity}': Malformation.NOT_JSON,
    '"valueQuantity":{"value":1e400}': Malformation.NOT_JSON,
    '"valueQuantity":{"value":01}': Malformation.NOT_JSON,
}


@pytest.mark.parametrize(("body", "reason"), REFUSED.items(), ids=REFUSED)
def test_what_makes_a_line_malformed(tmp_path, body, reason):
    found, malformed = read(tmp_path, GOOD + b"\n" + observation(body) + b"\n" + GOOD)
    assert found["id"].to_list() == ["good", "good"]
    assert malformed.select("line", "reason").rows() == [(2, reason)]


def test_integers_of_a_list_are_whole():
    column = {"name": "n", "path": "extension('u').value.ofType(integer)", "collection": True}
    view = compile_view({"resource": "Observation", "select": [{"column": [column]}]})
    extensions = [{"url": "u", "valueInteger": value} for value in (1, 2.5, None, 3.0)]
    resource = {"resourceType": "Observation", "id": "o", "extension": extensions}
    assert view.collect([json.loads(json.dumps(resource))]).item().to_list() == [1, 3]

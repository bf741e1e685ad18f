"""Decoding lines: every way yields the same, and no line is counted twice or lost."""

import json
from dataclasses import replace

import polars as pl
import pytest

from cohortflow.fhir.decoding import (
    LINE,
    REASON,
    TEXT,
    Decoding,
    LineDecoder,
    Malformation,
    is_decoding_fault,
    mark_modified,
)
from cohortflow.fhir.ndjson import read_views
from cohortflow.fhir.views import compile_view

DTYPE = pl.Struct(
    {"resourceType": pl.String(), "id": pl.String(), "valueQuantity": pl.Struct({"value": pl.Float64()})}
)
VIEW = compile_view(
    {
        "name": "v",
        "resource": "Observation",
        "select": [{"column": [{"name": "id", "path": "id"}, {"name": "status", "path": "status"}]}],
    }
)
LINES = 20_000


def observation(key, **more):
    return json.dumps({"resourceType": "Observation", "id": key, **more})


def decode(texts, decoding, engine="streaming"):
    lines = pl.LazyFrame(
        {LINE: range(1, len(texts) + 1), TEXT: texts}, schema={LINE: pl.UInt32(), TEXT: pl.String()}
    )
    return (
        LineDecoder("Observation", DTYPE, decoding=decoding)
        .decode(mark_modified(lines))
        .collect(engine=engine)
    )


def outcome(texts, decoding, engine):
    """What a batch yields: rows, or none where the fast way gives up."""
    try:
        return decode(texts, decoding, engine).rows()
    except pl.exceptions.PolarsError as error:
        if decoding is Decoding.FAST and is_decoding_fault(error):
            return None
        raise


BATCHES = {
    "all good": [observation("a"), observation("b", valueQuantity={"value": 1.5})],
    "blank lines": ["", observation("a"), " \t\r", observation("b"), ""],
    "another type": [observation("a"), '{"resourceType":"Patient","id":"p"}'],
    "no type": [observation("a"), '{"id":"p"}', "{}", '{"resourceType":"","id":"p"}'],
    "no id": [observation(""), observation(None), '{"resourceType":"Observation"}'],
    "no object": [observation("a"), "null", observation("b")],
    "nothing good": ["null", "{}", '{"resourceType":"Patient","id":"p"}'],
    "the same id twice": [observation("a"), observation("b"), observation("a")],
    "not JSON": [observation("a"), "oops", observation("b")],
    "a modifierExtension": [
        observation("a", modifierExtension=[{"url": "http://hospital.example/not", "valueBoolean": True}]),
        observation("b", note=[{"text": 'the word "modifierExtension" in a text'}]),
        observation("c", component=[{"modifierExtension": [{"url": "http://hospital.example/not"}]}]),
    ],
    "a wrong type": [observation("a"), observation("b", valueQuantity={"value": "1.5"})],
    "two values on the only line": [f"{observation('a')},{observation('b')}"],
    "two values on one of the lines": [observation("a"), f"{observation('b')},{observation('c')}"],
    "one value on all of the lines": ['{"resourceType":"Observation","id":"a","x":[{"y":1}', '{"y":2}]}'],
    "one value on some of the lines": [
        observation("z"),
        '{"id":"a","x":[{"y":1}',
        '{"y":2}]}',
        observation("b"),
    ],
}


@pytest.mark.parametrize("engine", ["streaming", "in-memory"])
@pytest.mark.parametrize("texts", BATCHES.values(), ids=BATCHES)
def test_the_fast_way_yields_the_same_or_gives_up(texts, engine):
    careful = outcome(texts, Decoding.CAREFUL, engine)
    assert len(careful) == sum(text.strip() != "" for text in texts)
    assert outcome(texts, Decoding.FAST, engine) in (None, careful)


@pytest.mark.parametrize("name", ["all good", "blank lines", "another type", "no type", "no object"])
def test_the_fast_way_needs_no_help_where_every_line_is_json(name):
    assert outcome(BATCHES[name], Decoding.FAST, "streaming") is not None


def test_reasons_of_the_fast_way():
    texts = (
        BATCHES["no type"]
        + BATCHES["no id"]
        + ["null", '{"resourceType":"Patient","id":"p"}', observation("z")]
    )
    found = decode(texts, Decoding.FAST)
    assert found[REASON].to_list() == [
        None,
        *[Malformation.NO_RESOURCE_TYPE] * 3,
        *[Malformation.NO_ID] * 3,
        Malformation.NOT_AN_OBJECT,
        Malformation.OTHER_RESOURCE_TYPE,
        None,
    ]


FAULTS = {
    "none": None,
    "not JSON": "oops",
    "two values": f"{observation('x')},{observation('y')}",
    "wrong type": observation("x", status=["final"]),
    "other type": '{"resourceType":"Patient","id":"p"}',
}


@pytest.mark.parametrize("place", [0, 0.5, 1])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_many_batches_with_a_fault_anywhere(tmp_path, fault, place):
    texts = [observation(f"o{number}", status="final", note="x" * 100) for number in range(LINES)]
    at = round(place * LINES)
    if fault is not None:
        texts.insert(at, fault)
    file = tmp_path / "o.ndjson"
    file.write_text("\n".join(texts), encoding="utf-8")
    fast = read_views([VIEW], [file])
    frames, malformed = fast.collect()
    assert frames["v"]["id"].sort().equals(pl.Series("id", [f"o{n}" for n in range(LINES)]).sort())
    assert malformed["line"].to_list() == ([] if fault is None else [at + 1])
    again, listed = replace(fast, decoding=Decoding.CAREFUL).collect()
    assert again["v"].sort("id").equals(frames["v"].sort("id"))
    assert listed.equals(malformed)


def test_a_read_begins_again_at_most_once_for_malformed_lines(tmp_path):
    file = tmp_path / "o.ndjson"
    file.write_text("\n".join([observation("a"), "oops", observation("b"), "oops"]), encoding="utf-8")
    begun = []

    def build(frames):
        begun.append(None)
        return [frames["v"]]

    (frame,), malformed = read_views([VIEW], [file]).execute(build)
    assert (len(begun), frame["id"].to_list(), malformed["line"].to_list()) == (2, ["a", "b"], [2, 4])


def test_good_lines_are_read_once(tmp_path):
    file = tmp_path / "o.ndjson"
    file.write_text("\n".join([observation("a"), "null", "", observation("b")]), encoding="utf-8")
    begun = []

    def build(frames):
        begun.append(None)
        return [frames["v"]]

    _, malformed = read_views([VIEW], [file]).execute(build)
    assert (len(begun), malformed["line"].to_list()) == (1, [2])


def test_a_resource_that_may_mean_the_opposite_is_set_aside(tmp_path):
    """FHIR R4, 2.4.0.2: a modifierExtension that is not known must not be passed over."""
    file = tmp_path / "Observation.ndjson"
    lines = BATCHES["a modifierExtension"]
    file.write_text("\n".join(lines))
    (found,), malformed = read_views([VIEW], [str(file)]).execute(lambda frames: [frames["v"]])
    assert found["id"].to_list() == ["b"]
    assert malformed["line"].to_list() == [1, 3]
    assert set(malformed["reason"]) == {Malformation.MODIFIED}


def test_it_is_set_aside_where_a_view_repeats(tmp_path):
    view = compile_view(
        {
            "name": "v",
            "resource": "QuestionnaireResponse",
            "select": [{"repeat": ["item"], "column": [{"name": "link", "path": "linkId"}]}],
        }
    )
    one = {"resourceType": "QuestionnaireResponse", "id": "a", "item": [{"linkId": "1"}]}
    lines = [one, {**one, "id": "b", "modifierExtension": [{"url": "http://hospital.example/not"}]}]
    file = tmp_path / "QuestionnaireResponse.ndjson"
    file.write_text("\n".join(map(json.dumps, lines)))
    (found,), malformed = read_views([view], [str(file)]).execute(lambda frames: [frames["v"]])
    assert found.height == 1
    assert malformed["line"].to_list() == [2]

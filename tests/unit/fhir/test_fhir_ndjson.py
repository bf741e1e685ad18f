"""Reading NDJSON: what is set aside, where it was, and that the rest goes on."""

import gzip
import json
from dataclasses import replace

import polars as pl
import pytest

from cohortflow.errors import ArtifactNotFoundError, MalformedDataError, ViewError
from cohortflow.fhir.decoding import Decoding
from cohortflow.fhir.ndjson import LINES, MALFORMED_SCHEMA, OCCURRENCES, Malformation, read_views
from cohortflow.fhir.views import compile_view


def view(name="patients", *columns, resource="Patient"):
    columns = columns or (
        {"name": "id", "path": "getResourceKey()"},
        {"name": "born", "path": "birthDate"},
        {"name": "active", "path": "active", "type": "boolean"},
        {"name": "family", "path": "name.family.first()"},
    )
    return compile_view({"name": name, "resource": resource, "select": [{"column": list(columns)}]})


def patient(key, **more):
    return json.dumps({"resourceType": "Patient", "id": key, **more})


def write(path, *lines, end="\n"):
    path.write_bytes(end.join(lines).encode("utf-8"))
    return path


def read(*files, views=None):
    frames, malformed = read_views(views or [view()], files).collect()
    return frames, malformed


def ids(frame):
    return frame["id"].to_list()


GOOD = patient("good")
FAMILY = {"name": "family", "path": "name.family"}
BAD_LINES = [
    ('{"resourceType":"Patient","id":"1"', Malformation.NOT_JSON),
    ('{"resourceType":"Patient","id":', Malformation.NOT_JSON),
    ('{"resourceType":"Patient","id":"1"}}', Malformation.NOT_JSON),
    ('{"resourceType":"Patient","id":"1"},{"resourceType":"Patient","id":"2"}', Malformation.NOT_JSON),
    ('{"resourceType":"Patient","id":"1"} {"resourceType":"Patient","id":"2"}', Malformation.NOT_JSON),
    ("{'resourceType':'Patient'}", Malformation.NOT_JSON),
    ('{"resourceType":"Patient","id":"1","x":NaN}', Malformation.NOT_JSON),
    ('{"resourceType":"Patient","id":"a\tb"}', Malformation.NOT_JSON),
    ("[" * 100_000 + "]" * 100_000, Malformation.NOT_JSON),
    ("\x00", Malformation.NOT_JSON),
    ("<html>", Malformation.NOT_JSON),
    ("[1]", Malformation.NOT_AN_OBJECT),
    ('"text"', Malformation.NOT_AN_OBJECT),
    ("null", Malformation.NOT_AN_OBJECT),
    ("1", Malformation.NOT_AN_OBJECT),
    ("true", Malformation.NOT_AN_OBJECT),
    ('{"id":"1"}', Malformation.NO_RESOURCE_TYPE),
    ("{}", Malformation.NO_RESOURCE_TYPE),
    ('{"resourceType":null,"id":"1"}', Malformation.NO_RESOURCE_TYPE),
    ('{"resourceType":"Observation","id":"1"}', Malformation.OTHER_RESOURCE_TYPE),
    ('{"resourceType":"OperationOutcome","issue":[]}', Malformation.OTHER_RESOURCE_TYPE),
    ('{"resourceType":"Patient"}', Malformation.NO_ID),
    ('{"resourceType":"Patient","id":""}', Malformation.NO_ID),
    ('{"resourceType":"Patient","id":null}', Malformation.NO_ID),
    ('{"resourceType":"Patient","id":{"value":"1"}}', Malformation.WRONG_JSON_TYPE),
    ('{"resourceType":"Patient","id":"1","active":"true"}', Malformation.WRONG_JSON_TYPE),
    ('{"resourceType":"Patient","id":"1","name":{"family":"x"}}', Malformation.WRONG_JSON_TYPE),
    ('{"resourceType":"Patient","id":"1","name":["x"]}', Malformation.WRONG_JSON_TYPE),
    ('{"resourceType":"Patient","id":"1","name":[{"family":["x"]}]}', Malformation.WRONG_JSON_TYPE),
    ('{"resourceType":["Patient"],"id":"1"}', Malformation.WRONG_JSON_TYPE),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES, ids=[f"{text[:40]!r}" for text, _ in BAD_LINES])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_malformed_line_is_set_aside_alone(tmp_path, line, reason, position):
    lines = [patient("a"), patient("b")]
    lines.insert(position, line)
    file = write(tmp_path / "p.ndjson", *lines)
    frames, malformed = read(file)
    assert ids(frames["patients"]) == ["a", "b"]
    assert malformed.rows() == [(str(file), position + 1, reason.value)]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES, ids=[f"{text[:40]!r}" for text, _ in BAD_LINES])
def test_a_file_of_one_malformed_line(tmp_path, line, reason):
    frames, malformed = read(write(tmp_path / "p.ndjson", line))
    assert frames["patients"].is_empty()
    assert malformed["reason"].to_list() == [reason.value]


def test_all_malformed_lines_at_once_keep_their_numbers(tmp_path):
    lines, expected = [], []
    for text, reason in BAD_LINES:
        lines += [patient(f"p{len(lines)}"), "", text]
        expected.append((len(lines), reason.value))
    file = write(tmp_path / "p.ndjson", *lines)
    frames, malformed = read(file)
    assert [(line, reason) for _, line, reason in malformed.rows()] == expected
    assert len(frames["patients"]) == len(BAD_LINES)


def test_parts_of_one_value_on_two_lines_are_two_malformed_lines(tmp_path):
    file = write(
        tmp_path / "p.ndjson", GOOD, '{"resourceType":"Patient","id":"1","x":[1', "2]}", patient("z")
    )
    frames, malformed = read(file)
    assert ids(frames["patients"]) == ["good", "z"]
    assert malformed["line"].to_list() == [2, 3]


def test_bytes_that_are_not_utf8(tmp_path):
    file = tmp_path / "p.ndjson"
    file.write_bytes(
        b"\n".join(
            [GOOD.encode(), b'{"resourceType":"Patient","id":"\xff"}', b"", patient("é").encode(), b"[1]"]
        )
    )
    other = write(tmp_path / "q.ndjson", patient("q"))
    frames, malformed = read(file, other)
    assert ids(frames["patients"]) == ["good", "é", "q"]
    assert malformed.rows() == [
        (str(file), 2, Malformation.NOT_UTF8.value),
        (str(file), 5, Malformation.NOT_AN_OBJECT.value),
    ]


def test_utf16_is_malformed_as_a_whole(tmp_path):
    file = tmp_path / "p.ndjson"
    file.write_bytes(f"{GOOD}\n".encode("utf-16"))
    frames, malformed = read(file)
    assert frames["patients"].is_empty()
    assert not malformed.is_empty()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\r\n \t\r\n"])
@pytest.mark.parametrize("last", ["", "\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_blank_lines_and_byte_order_marks_are_tolerated(tmp_path, end, last, mark):
    file = tmp_path / "p.ndjson"
    file.write_bytes((mark + end.join([patient("a"), patient("b"), "[]"]) + last).encode("utf-8"))
    frames, malformed = read(file)
    assert ids(frames["patients"]) == ["a", "b"]
    assert malformed["line"].to_list() == [1 + 2 * end.count("\n")]


def test_files_without_lines(tmp_path):
    empty = write(tmp_path / "a.ndjson")
    blank = write(tmp_path / "b.ndjson", "", " ", "")
    packed = tmp_path / "c.ndjson.gz"
    packed.write_bytes(gzip.compress(b""))
    for files in ([empty], [blank], [packed], [empty, blank, packed], []):
        frames, malformed = read(*files)
        assert frames["patients"].schema == view().schema
        assert frames["patients"].is_empty()
        assert malformed.schema == MALFORMED_SCHEMA
        assert malformed.is_empty()


def test_gzip_and_plain_files_by_content_not_by_name(tmp_path):
    plain = write(tmp_path / "a.gz", patient("a"))
    packed = tmp_path / "b.ndjson"
    # Two members, as servers and `cat` make them.
    packed.write_bytes(
        gzip.compress(f"{patient('b')}\n".encode()) + gzip.compress(f"[]\n{patient('c')}\n".encode())
    )
    frames, malformed = read(plain, packed)
    assert ids(frames["patients"]) == ["a", "b", "c"]
    assert malformed.rows() == [(str(packed), 2, Malformation.NOT_AN_OBJECT.value)]


def test_names_with_wildcards_are_names(tmp_path):
    file = write(tmp_path / "p[1]*.ndjson", GOOD)
    write(tmp_path / "p1x.ndjson", patient("other"))
    assert ids(read(file)[0]["patients"]) == ["good"]


def test_truncated_gzip_fails_and_names_the_file(tmp_path):
    whole = write(tmp_path / "a.ndjson", GOOD)
    packed = gzip.compress("\n".join(patient(f"p{n}") for n in range(5000)).encode())
    cut = tmp_path / "b.ndjson.gz"
    cut.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(MalformedDataError) as caught:
        read(whole, cut)
    assert caught.value.place == str(cut)


def test_missing_file(tmp_path):
    with pytest.raises(ArtifactNotFoundError, match="gone"):
        read(tmp_path / "gone.ndjson")


def test_what_fhir_allows_is_read(tmp_path):
    resource = {
        "_birthDate": {"extension": [{"url": "u", "valueDateTime": "1970-01-01T00:00:00Z"}]},
        "contained": [{"resourceType": "Organization", "id": "good"}],
        "name": [{"family": None, "given": [None, "B"], "_given": [{"id": "x"}, None]}],
        "unheard": {"of": [1, "x", None]},
    }
    columns = [{"name": "id", "path": "id"}, {"name": "given", "path": "name.given", "collection": True}]
    names = view("names", *columns)
    frames, malformed = read(write(tmp_path / "p.ndjson", patient("p", **resource)), views=[names])
    assert frames["names"].rows() == [("p", ["B"])]
    assert malformed.is_empty()


@pytest.mark.parametrize(
    ("text", "number"), [("1E3", 1000.0), ("1e-2", 0.01), ("7", 7.0), ("-0.5", -0.5), ("1.50", 1.5)]
)
def test_forms_of_decimals(tmp_path, text, number):
    values = view(
        "values",
        {"name": "v", "path": "value.ofType(Quantity).value", "type": "decimal"},
        resource="Observation",
    )
    line = f'{{"resourceType":"Observation","id":"o","valueQuantity":{{"value":{text}}}}}'
    assert read(write(tmp_path / "o.ndjson", line), views=[values])[0]["values"].rows() == [(number,)]


def test_the_result_of_a_line_does_not_depend_on_its_neighbours(tmp_path):
    # Numbers where FHIR has texts are accepted: alone, and beside a line that makes the batch fail.
    line = '{"resourceType":"Patient","id":7,"birthDate":1970}'
    alone, _ = read(write(tmp_path / "a.ndjson", line))
    beside, _ = read(write(tmp_path / "b.ndjson", "[]", line))
    assert alone["patients"].equals(beside["patients"])


def only(name, where):
    column = {"name": "id", "path": "id"}
    return compile_view(
        {"name": name, "resource": "Patient", "where": [{"path": where}], "select": [{"column": [column]}]}
    )


@pytest.mark.parametrize("decoding", Decoding)
def test_views_of_one_type_share_a_read(tmp_path, decoding):
    lines = [patient(f"p{n}", gender=["male", "female"][n % 2], name=[{"family": "F"}]) for n in range(50)]
    file = write(tmp_path / "p.ndjson", *lines, "")
    others = [{"name": "id", "path": "id"}, {"name": "f", "path": "name.family", "collection": True}]
    views = [view(), view("families", *others), view("again", *others)]
    # Filters must not keep views from sharing.
    views += [only("men", "gender = 'male'"), only("nobody", "gender = 'x'"), only("named", "name.exists()")]
    decoded = []
    read_once = replace(read_views(views, [file], on_batch=decoded.append), decoding=decoding)
    frames, _ = read_once.collect()
    assert [len(frames[one.name]) for one in views] == [50, 50, 50, 25, 0, 50]
    assert sum(decoded) == file.stat().st_size


def test_parquet_files_and_the_list_of_malformed_lines(tmp_path):
    file = write(tmp_path / "p.ndjson", GOOD, "oops")
    keys = view("keys", {"name": "id", "path": "id"})
    targets = {"patients": tmp_path / "patients.parquet", "keys": tmp_path / "keys.parquet"}
    malformed = read_views([view(), keys], [file]).sink_parquet(targets)
    assert ids(pl.read_parquet(targets["patients"])) == ["good"]
    assert pl.read_parquet(targets["keys"]).schema == keys.schema
    assert malformed["line"].to_list() == [2]


def test_steps_on_top_of_the_views_run_in_the_same_read(tmp_path):
    file = tmp_path / "p.ndjson"
    file.write_bytes(b"\xff\n" + f"{patient('a')}\n{patient('b')}\n".encode())
    read_again = read_views([view()], [file])
    (count,), malformed = read_again.execute(lambda frames: [frames["patients"].select(pl.len())])
    assert count.item() == 2
    assert malformed["line"].to_list() == [1]


def test_several_values_are_an_error_without_the_values(tmp_path):
    family = view("families", FAMILY)
    file = write(tmp_path / "p.ndjson", patient("p", name=[{"family": "Secret"}, {"family": "Hidden"}]))
    with pytest.raises(ViewError, match="several values") as caught:
        read(file, views=[family])
    assert "Secret" not in str(caught.value)
    assert "Hidden" not in "".join(map(str, [caught.value, caught.value.__cause__]))
    assert "families" in caught.value.place


@pytest.mark.parametrize("decoding", Decoding)
def test_what_is_put_on_top_of_a_read_does_not_repeat_it(tmp_path, decoding):
    lines = [patient(f"p{n}", gender=["male", "female"][n % 2]) for n in range(50)]
    file = write(tmp_path / "p.ndjson", *lines, "")
    views = [only("men", "gender = 'male'"), only("nobody", "gender = 'x'")]
    decoded = []

    def decode(build):
        decoded.clear()
        rows, _ = replace(read_views(views, [file], on_batch=decoded.append), decoding=decoding).execute(
            build
        )
        return [len(frame) for frame in rows]

    some = pl.col("id") == "p7"
    for build, rows in [
        (lambda frames: [frames["men"]], [25]),
        (lambda frames: [frames["men"].filter(some), frames["nobody"].filter(some)], [0, 0]),
        (lambda frames: [frames[LINES].filter(some)], [1]),
        (lambda frames: [frames[OCCURRENCES].filter(some)], [1]),
        (lambda frames: [frames[OCCURRENCES].filter(some), frames["men"]], [1, 25]),
    ]:
        assert decode(build) == rows
        assert sum(decoded) == file.stat().st_size


@pytest.mark.parametrize("decoding", Decoding)
def test_what_a_malformed_line_holds_fails_no_view(tmp_path, decoding):
    # Each of them would fail a view that saw it: the views want one family name.
    names = [{"family": "A"}, {"family": "B"}]
    modified = patient("modified", name=names, modifierExtension=[{"url": "u"}])
    other = '{"resourceType":"Practitioner","id":"o","name":[{"family":"A"},{"family":"B"}]}'
    file = write(tmp_path / "p.ndjson", modified, other, patient("good", name=names[:1]))
    views = [only("where", "name.family = 'A'"), view("column", {"name": "id", "path": "id"}, FAMILY)]
    for wanted in ([views[0]], [views[1]], views):
        frames, malformed = replace(read_views(wanted, [file]), decoding=decoding).collect()
        assert [frame["id"].to_list() for frame in frames.values()] == [["good"]] * len(wanted)
        assert malformed["line"].to_list() == [1, 2]


def test_views_must_fit_together():
    with pytest.raises(ViewError, match="Observation, Patient"):
        read_views([view(), view("o", {"name": "id", "path": "id"}, resource="Observation")], [])
    with pytest.raises(ViewError, match="one name"):
        read_views([view(), view()], [])
    with pytest.raises(ViewError, match="none"):
        read_views([], [])


def test_a_value_too_large_for_its_column_is_an_error_without_the_value(tmp_path):
    column = {
        "name": "v",
        "path": "value.ofType(Quantity).value",
        "tag": [{"name": "ansi/type", "value": "DECIMAL"}],
    }
    line = '{"resourceType":"Observation","id":"o","valueQuantity":{"value":1.25e38}}'
    with pytest.raises(ViewError, match="does not fit") as caught:
        read(write(tmp_path / "o.ndjson", line), views=[view("v", column, resource="Observation")])
    assert "25" not in str(caught.value)


def test_secrets_of_the_store_are_not_shown():
    shown = repr(
        read_views([view()], ["s3://bucket/p.ndjson"], storage_options={"aws_secret_access_key": "hush"})
    )
    assert "hush" not in shown
    assert "s3://bucket/p.ndjson" in shown


def test_plans_of_remote_files_are_made_without_touching_the_network():
    remote = read_views([view()], ["s3://bucket.invalid/p.ndjson"], storage_options={"aws_region": "nowhere"})
    assert remote.frames["patients"].collect_schema() == view().schema

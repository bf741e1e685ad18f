"""YAML with the places of its parts."""

import pytest

from cohortflow.errors import CatalogError
from cohortflow.model.located_yaml import parse_located, read_located

TEXT = """\
codes:
  0123: {on: 1950-03-14}
list:
- first
-
  second: 12:30
"""


def parse(text, **options):
    return parse_located(text, "file.yaml", CatalogError, remedy="See the page.", **options)


def test_a_part_stands_at_its_key_or_its_item():
    located = parse(TEXT)
    places = [("codes",), ("codes", "0123"), ("codes", "0123", "on"), ("list", 0), ("list", 1, "second")]
    assert [located.place(place) for place in places] == [f"file.yaml:{line}" for line in (1, 2, 2, 4, 6)]


def test_what_is_not_there_stands_at_its_nearest_parent():
    assert parse(TEXT).place(("list", 1, "third", "deeper")) == "file.yaml:6"


def test_scalars_stay_texts_on_demand():
    assert parse(TEXT, texts=True).data == {
        "codes": {"0123": {"on": "1950-03-14"}},
        "list": ["first", {"second": "12:30"}],
    }


@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("a: [", "file.yaml:2", "Not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", "file.yaml:3", "The key 'a' stands twice"),
        ("- a\n", "file.yaml", "does not hold a mapping"),
        ("", "file.yaml", "does not hold a mapping"),
        ("a: \x01\n", "file.yaml", "Not valid YAML"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(text, place, message, texts):
    with pytest.raises(CatalogError, match=message) as caught:
        parse(text, texts=texts)
    assert caught.value.place == place


def test_a_file_that_cannot_be_read_is_of_the_same_kind_of_error(tmp_path):
    with pytest.raises(CatalogError, match="FileNotFoundError"):
        read_located(tmp_path / "none.yaml", CatalogError, remedy="")
    (tmp_path / "latin.yaml").write_bytes("a: é".encode("latin-1"))
    with pytest.raises(CatalogError, match="Not UTF-8"):
        read_located(tmp_path / "latin.yaml", CatalogError, remedy="")

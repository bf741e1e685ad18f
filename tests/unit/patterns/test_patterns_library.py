"""Patterns of the catalog: shipped ones, a catalog's own, and what is refused."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

from cohortflow.errors import CatalogError
from cohortflow.model import Catalog, PhiClass
from cohortflow.patterns import PatternLibrary, load_patterns, pattern_names
from cohortflow.terminology import STANDARD_SYSTEMS, canonical_code

CATALOG = Catalog.default()
ROOMS = """\
patterns:
  - name: room
    title: Room of this hospital
    kind: identifier
    phi: QUASI_IDENTIFIER
    source: House rules
    regex: 'R-[0-9]{3}'
    examples:
      valid: [R-101]
      invalid: [R-1]
      in_text:
        - {text: moved to R-101., finds: [R-101]}
"""


@pytest.fixture(scope="module")
def library():
    return load_patterns(CATALOG)


@pytest.fixture
def own(tmp_path):
    """Write a pattern file of a catalog's own, with replacements in the text of a sound one."""

    def write(*replacements, text=ROOMS, name="rooms"):
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        folder = tmp_path / "catalog/patterns"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
        return Catalog(tmp_path / "catalog")

    return write


def found_in(pattern, text):
    frame = pl.DataFrame({"text": [text]}, schema={"text": pl.String})
    return frame.select(pattern.find_all(pl.col("text"))).item().to_list()


def test_every_identifier_of_safe_harbor_has_a_pattern(library):
    assert {pattern.hipaa for pattern in library} - {None} == set("ABCDEFGHIJKLMNOPQR")
    assert all(pattern.phi is PhiClass.SAFE_CODE for pattern in library if pattern.kind == "code")
    assert all(pattern.phi > PhiClass.QUASI_IDENTIFIER for pattern in library.select(hipaa=True))


def test_expressions_use_no_unicode_classes_which_are_slow(library):
    forms = [form for item in library for form in (item.whole_regex, item.text_regex)]
    assert [form for form in forms if re.search(r"\\[dwsDWS]|(?<!-u:)\\b", form)] == []


def test_patterns_and_terminology_agree_on_codes(library):
    for pattern in library.select(kinds=["code"]):
        known = STANDARD_SYSTEMS.get(pattern.system)
        if known is None or not known.syntax:
            continue
        for value in pattern.definition.examples.valid:
            if pattern.name == "ndc" and len(value) == 10:
                continue  # without hyphens no 10-digit code has one meaning
            code = canonical_code(known.uri, value.replace(".", "") if pattern.name == "icd10cm" else value)
            if pattern.name == "icd9cm" and "." not in code and len(code) > 3:
                continue  # nothing tells where its dot belongs
            assert re.fullmatch(known.syntax, code), (pattern.name, value)


def test_null_stays_null_and_names_stay(library):
    frame = pl.DataFrame({"v": [None, "no such thing, really"]}, schema={"v": pl.String})
    for pattern in library:
        result = frame.select(
            pattern.matches(pl.col("v")),
            occurs=pattern.occurs_in(pl.col("v")),
            found=pattern.find_all(pl.col("v")),
        )
        assert result.columns == ["v", "occurs", "found"]
        assert result.rows() == [(None, None, None), (False, False, [])], pattern.name


def test_the_streaming_engine_gives_the_same(library):
    texts = [example.text for pattern in library for example in pattern.definition.examples.in_text]
    frame = pl.LazyFrame({"t": [*texts, None] * 20})
    wanted = frame.select(**{pattern.name: pattern.find_all(pl.col("t")) for pattern in library})
    assert wanted.collect().equals(wanted.collect(engine="streaming"))


def test_the_common_pass_misses_nothing(library):
    texts = [example.text for pattern in library for example in pattern.definition.examples.in_text]
    frame = pl.DataFrame({"t": [*texts, "nothing here", None]})
    any_of_them = pl.any_horizontal(pattern.occurs_in(pl.col("t")) for pattern in library)
    result = frame.select(may=library.may_occur_in(pl.col("t")), does=any_of_them)
    assert result.filter(pl.col("does") & ~pl.col("may")).is_empty()
    assert result["may"].to_list()[-2:] == [False, None]
    assert frame.select(PatternLibrary([]).may_occur_in(pl.col("t"))).to_series().any() is False


@pytest.mark.parametrize(
    ("name", "text", "finds"),
    [
        ("ssn", "111-22-3333 444-55-6666", ["111-22-3333", "444-55-6666"]),
        ("ssn", "x123-45-6789 5123-45-67890", []),
        ("mrn", "MRN: 00123456\nMRN=99887766", ["00123456", "99887766"]),
        ("mrn", "the mrn is E1234567", ["E1234567"]),
        ("npi", "NPI: 1234567893, NPI: 1234567890, NPI: 1245319599", ["1234567893", "1245319599"]),
        ("phone_us", "Tel (617)555-0123;617-555-0199", ["(617)555-0123", "617-555-0199"]),
        ("phone_us", "f81d4fae-7dec-11d0-a765-617-55", []),
        ("email", "müller@klinik.example, jane@example.org.", ["müller@klinik.example", "jane@example.org"]),
        ("date_us", "1/2/2020-3/4/2021", []),
        ("date_iso", "2020-01-02/2020-02-03", ["2020-01-02", "2020-02-03"]),
        ("zip_code", "Boston, MA 02115-1234", ["MA 02115-1234"]),
        ("loinc", "LOINC|4548-4^2345-8", ["4548-4"]),
        ("ipv4", "10.0.0.1:8080 and 1.2.3.4.5", ["10.0.0.1"]),
    ],
)
def test_occurrences_in_texts(library, name, text, finds):
    assert found_in(library[name], text) == finds


def test_values_are_spelled_alike_for_comparison(library):
    frame = pl.DataFrame({"v": ["123-45-6789", " 123 45 6789 ", None]})
    assert frame.select(library["ssn"].normalize(pl.col("v"))).to_series().to_list() == ["123456789"] * 2 + [
        None
    ]


def test_a_catalog_adds_patterns_to_the_shipped_ones(own, library):
    more = load_patterns(own())
    assert len(more) == len(library) + 1
    assert found_in(more["room"], "from R-101 to R-202") == ["R-101", "R-202"]
    assert more["room"].place.endswith("rooms.yaml:2")
    assert load_patterns(own(), "room", "ssn").names == ("room", "ssn")


def test_a_catalog_takes_the_place_of_a_shipped_pattern(own):
    catalog = own(("name: room", "name: mrn"))
    assert load_patterns(catalog, "mrn")["mrn"].title == "Room of this hospital"
    assert load_patterns(CATALOG, "mrn")["mrn"].title == "Medical record number"


def test_a_mended_file_is_read_again(own):
    catalog = own()
    load_patterns(catalog)
    own(("Room of this hospital", "Room"))
    assert load_patterns(catalog, "room")["room"].title == "Room"


@pytest.mark.parametrize(
    ("old", "new", "line", "message", "remedy"),
    [
        ("'R-[0-9]{3}'", "'R-([0-9]{3}'", 2, "regex is no regular expression: unclosed group", "Rust"),
        ("'R-[0-9]{3}'", "'(?<=x)R-[0-9]{3}'", 2, "look-around", "'boundary', 'token' or 'never'"),
        ("'R-[0-9]{3}'", "'(?:R-[0-9]{3})?'", 2, "matches the empty text", "at least one character"),
        ("'R-[0-9]{3}'", "'R-([0-9]{3})'", 2, "a form has groups", "(?:...)"),
        ("valid: [R-101]", "valid: [R-101, S-101]", 2, "the valid example 'S-101' is not matched", "Mend"),
        ("invalid: [R-1]", "invalid: [R-123]", 2, "the invalid example 'R-123' is matched", "Mend"),
        ("finds: [R-101]", "finds: [R-102]", 2, "it finds ['R-101'] and not ['R-102']", "Mend"),
        (
            "phi: QUASI",
            "check: mod97\n    phi: QUASI",
            5,
            "check: Input should be 'luhn', 'npi'",
            "docs/patterns.md",
        ),
        ("phi: QUASI_IDENTIFIER", "phi: SECRET", 5, "unknown PHI class", "docs/patterns.md"),
        ("kind: identifier", "kind: thing", 4, "kind: Input should be 'identifier'", "docs/patterns.md"),
        ("title:", "titel:", 3, "titel: Extra inputs", "docs/patterns.md"),
        ("invalid: [R-1]", "invalid: []", 10, "examples.invalid", "docs/patterns.md"),
        ("name: room", "name: Room", 2, "name: String should match", "docs/patterns.md"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(own, old, new, line, message, remedy):
    with pytest.raises(CatalogError) as caught:
        load_patterns(own((old, new)))
    assert message in caught.value.message
    assert caught.value.place.endswith(f"rooms.yaml:{line}")
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("patterns: [", ":2", "Not valid YAML"),
        ("pattern:\n  - name: x\n", ":1", "holds one key, 'patterns'"),
        ("patterns:\n  - just text\n", ":2", "Pattern number 1"),
        ("- name: x\n", "", "does not hold a mapping"),
        ("patterns:\n  - name: x\n    name: y\n", ":3", "'name' stands twice"),
    ],
)
def test_a_file_of_another_form_is_refused(own, text, line, message):
    with pytest.raises(CatalogError) as caught:
        pattern_names(own(text=text))
    assert message in caught.value.message
    assert caught.value.place.endswith(f"rooms.yaml{line}")


def test_two_patterns_of_one_name_are_refused(own):
    catalog = own()
    own(name="more_rooms")
    with pytest.raises(CatalogError, match=r"'room' is already defined at .*more_rooms\.yaml:2"):
        load_patterns(catalog)


def test_an_unknown_name_is_refused_with_the_nearest(library):
    with pytest.raises(CatalogError, match="Did you mean 'loinc'"):
        load_patterns(CATALOG, "loin")
    with pytest.raises(CatalogError, match="Did you mean 'ssn'"):
        library["snn"]


def test_a_copy_of_the_catalog_has_the_same_patterns(tmp_path, library):
    shutil.copytree(CATALOG.root / "patterns", tmp_path / "patterns")
    assert load_patterns(Catalog(tmp_path)).names == library.names


def test_names_are_read_without_a_data_library():
    program = (
        "import sys; from cohortflow.model import Catalog; from cohortflow.patterns import pattern_names;"
        "assert 'loinc' in pattern_names(Catalog.default()); print('polars' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_the_page_shows_every_pattern():
    page = (Path(__file__).resolve().parents[3] / "docs/patterns.md").read_text(encoding="utf-8")
    for file in sorted((CATALOG.root / "patterns").glob("*.yaml")):
        for entry in yaml.safe_load(file.read_text(encoding="utf-8"))["patterns"]:
            cells = (f"`{entry['name']}`", entry["title"], entry.get("hipaa", ""), entry.get("check", ""))
            assert f"| {' | '.join(cells)} | {entry['source']} |" in page


def test_the_pattern_that_the_page_shows_loads(own):
    page = (Path(__file__).resolve().parents[3] / "docs/patterns.md").read_text(encoding="utf-8")
    shown = re.compile(r'^```yaml title="catalog/patterns/\w+\.yaml"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
    (text,) = shown.findall(page)
    pattern = load_patterns(own(text=text), "our_mrn")["our_mrn"]
    assert found_in(pattern, "MRN: gh1234567-4; GH1234567-5") == ["gh1234567-4"]

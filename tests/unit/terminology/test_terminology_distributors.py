"""Loaders of distributors' folders: how the parts of a release fit, and what is wrong with files."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from cohortflow.errors import CohortflowError, InputError, MalformedDataError
from cohortflow.terminology.integrity import check_edges, collect_table
from cohortflow.terminology.loaders import LOADERS

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "terminology"
FORMATS = ("athena", "gems", "icd10pcs", "loinc", "rf2", "rxnorm", "umls")
RF2 = "Snapshot/Terminology/sct2_{}_INT_20260131.txt"
EXTENDED = "Snapshot/Refset/Map/der2_iisssccRefset_ExtendedMapSnapshot_INT_20260131.txt"
HIERARCHY = "AccessoryFiles/ComponentHierarchyBySystem/ComponentHierarchyBySystem.csv"
LINKS = "AccessoryFiles/PartFile/LoincPartLink_Primary.csv"
TABLES_OF_TEXT = {  # a file of each format whose lines are rows, and what stands between its columns
    "athena": ("CONCEPT_RELATIONSHIP.csv", "\t"),
    "gems": ("2018_I9gem.txt", " "),
    "loinc": (LINKS, ","),
    "rf2": (RF2.format("Relationship_Snapshot"), "\t"),
    "rxnorm": ("rrf/RXNREL.RRF", "|"),
    "umls": ("2026AA/META/MRREL.RRF", "|"),
}


@pytest.fixture
def copy(tmp_path):
    """Return a copy of a format's folder."""

    def make(format_):
        return Path(shutil.copytree(GOLDEN / format_ / "input", tmp_path / format_))

    return make


def load(format_, folder, version=None):
    """Load a folder, and read its tables as a store does."""
    releases = LOADERS[format_](folder, version=version)
    return [
        (release, {name: collect_table(release, name) for name in release.tables}) for release in releases
    ]


def edit(file, old, new):
    """Replace text that must be there."""
    text = file.read_bytes().decode()
    assert old in text
    file.write_bytes(text.replace(old, new, 1).encode())


def refused(format_, folder, error=MalformedDataError):
    """Return the error with which a folder is refused; it says what to do."""
    with pytest.raises(error) as caught:
        load(format_, folder)
    assert caught.value.remedy
    return str(caught.value)


@pytest.mark.parametrize("format_", FORMATS)
def test_hierarchies_lead_to_concepts(format_):
    for release, tables in load(format_, GOLDEN / format_ / "input"):
        if "edges" in tables:
            check_edges(tables["edges"], tables["concepts"], release.title)


@pytest.mark.parametrize(
    ("format_", "words"), [("athena", {"NA", "null"}), ("loinc", {"NA"}), ("rf2", {"NA"})]
)
def test_words_that_look_like_nothing_stay_text(format_, words):
    terms = [tables["synonyms"]["term"] for _, tables in load(format_, GOLDEN / format_ / "input")]
    assert words <= set(pl.concat(terms))


@pytest.mark.parametrize("format_", FORMATS)
def test_line_ends_and_marks_of_other_systems_change_nothing(format_, copy):
    expected = load(format_, GOLDEN / format_ / "input")
    folder = copy(format_)
    for file in folder.rglob("*"):
        if file.is_file():
            text = file.read_bytes().decode("utf-8-sig")
            file.write_bytes(text.replace("\r\n", "\n").encode())
    found = load(format_, folder)
    for (_, before), (_, after) in zip(expected, found, strict=True):
        assert before.keys() == after.keys()
        assert all(before[name].equals(after[name]) for name in before)


@pytest.mark.parametrize("format_", TABLES_OF_TEXT)
def test_a_line_that_is_cut_is_named(format_, copy):
    name, separator = TABLES_OF_TEXT[format_]
    folder = copy(format_)
    lines = (folder / name).read_text(encoding="utf-8").splitlines()
    lines[1] = lines[1][: lines[1].rindex(separator)].rstrip(separator)
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert f"{Path(name).name}:2: " in refused(format_, folder)


@pytest.mark.parametrize("format_", TABLES_OF_TEXT)
def test_a_file_that_is_no_text_is_refused(format_, copy):
    folder = copy(format_)
    file = folder / TABLES_OF_TEXT[format_][0]
    file.write_bytes(file.read_bytes() + b"\xff\xfe\x00\xff\n")
    assert file.name in refused(format_, folder, CohortflowError)


@pytest.mark.parametrize(
    ("format_", "name", "column"),
    [
        ("athena", "CONCEPT.csv", "concept_code"),
        ("athena", "CONCEPT_ANCESTOR.csv", "min_levels_of_separation"),
        ("athena", "VOCABULARY.csv", "vocabulary_version"),
        ("loinc", "LoincTable/Loinc.csv", "LONG_COMMON_NAME"),
        ("loinc", "LoincTable/MapTo.csv", "MAP_TO"),
        ("loinc", HIERARCHY, "IMMEDIATE_PARENT"),
        ("rf2", RF2.format("Concept_Snapshot"), "effectiveTime"),
        ("rf2", EXTENDED, "mapRule"),
        ("rf2", "Snapshot/Refset/Map/der2_sRefset_SimpleMapFromSCTSnapshot_INT_20260131.txt", "mapTarget"),
    ],
)
def test_a_column_that_is_missing_is_named(format_, name, column, copy):
    folder = copy(format_)
    edit(folder / name, column, "other")
    message = refused(format_, folder)
    assert f"{Path(name).name}:1: The column '{column.lower()}' is missing." in message


@pytest.mark.parametrize(
    ("format_", "name", "old", "new", "expected"),
    [
        ("athena", "CONCEPT.csv", "\t", ",", "separated by commas, not by tabs"),
        ("loinc", "LoincTable/MapTo.csv", ",", "\t", "separated by tabs, not by commas"),
        ("rf2", RF2.format("Concept_Snapshot"), "\t", "|", "separated by bars, not by tabs"),
        ("rxnorm", "rrf/RXNCONSO.RRF", "|", "\t", "Rich Release Format, with bars"),
    ],
)
def test_another_separator_is_named(format_, name, old, new, expected, copy):
    folder = copy(format_)
    text = (folder / name).read_bytes().replace(old.encode(), new.encode())
    (folder / name).write_bytes(text)
    message = refused(format_, folder, InputError)
    assert expected in message
    assert Path(name).name in message


@pytest.mark.parametrize(
    ("format_", "name", "expected"),
    [
        ("athena", "VOCABULARY.csv", "has no VOCABULARY.csv"),
        ("athena", "CONCEPT_RELATIONSHIP.csv", "has no CONCEPT_RELATIONSHIP.csv"),
        ("loinc", "LoincTable/Loinc.csv", "has no table of LOINC"),
        ("rf2", RF2.format("Concept_Snapshot"), "has no snapshot of the concepts"),
        ("rf2", RF2.format("Description_Snapshot-en"), "has no"),
        ("rxnorm", "rrf/RXNSAT.RRF", "has no RXNSAT.RRF"),
        ("umls", "2026AA/META/MRCONSO.RRF", "has no MRCONSO.RRF"),
    ],
)
def test_a_file_that_is_missing_is_named(format_, name, expected, copy):
    folder = copy(format_)
    (folder / name).unlink()
    if "Description" in name:
        (folder / name.replace("Description_Snapshot-en", "TextDefinition_Snapshot-en")).unlink()
    assert expected in refused(format_, folder, InputError)


@pytest.mark.parametrize(
    ("format_", "names"),
    [
        ("athena", ["CONCEPT_ANCESTOR.csv", "CONCEPT_SYNONYM.csv"]),
        ("gems", ["2018_I10gem.txt", "gem_i9pcs.txt", "gem_pcsi9.txt"]),
        ("loinc", [HIERARCHY, LINKS, "AccessoryFiles/PartFile/Part.csv", "LoincTable/MapTo.csv"]),
        ("rf2", [EXTENDED, "Snapshot/Refset/Language/der2_cRefset_LanguageSnapshot-en_INT_20260131.txt"]),
        ("rxnorm", ["rrf/RXNATOMARCHIVE.RRF"]),
        ("umls", ["2026AA/META/MRREL.RRF", "2026AA/META/MRRANK.RRF", "2026AA/META/MRSAB.RRF"]),
    ],
)
def test_files_that_may_be_missing_are_not_missed(format_, names, copy):
    folder = copy(format_)
    for name in names:
        (folder / name).unlink()
    for release, tables in load(format_, folder):
        assert tables
        if "concepts" in tables:
            assert tables["concepts"].height, release.title


def test_an_archive_is_to_be_unpacked(tmp_path):
    file = tmp_path / "SnomedCT.zip"
    file.write_bytes(b"PK")
    assert "Unpack it" in refused("rf2", file, InputError)


@pytest.mark.parametrize(
    ("format_", "source", "copied", "expected"),
    [
        ("rf2", RF2.format("Concept_Snapshot"), "x/sct2_Concept_Snapshot_INT_20250731.txt", "Several files"),
        (
            "rf2",
            RF2.format("Description_Snapshot-en"),
            "x/sct2_Description_Snapshot-es_INT_20250731.txt",
            "several editions or versions: INT 20250731 and INT 20260131",
        ),
        ("loinc", "LoincTable/Loinc.csv", "Loinc_2.80/Loinc.csv", "Several files"),
        ("gems", "2018_I9gem.txt", "2017_I9gem.txt", "several"),
        ("gems", "2018_I9gem.txt", "2017_I10gem.txt", "several"),
    ],
)
def test_two_versions_in_a_folder_are_refused(format_, source, copied, expected, copy):
    folder = copy(format_)
    (folder / copied).parent.mkdir(exist_ok=True)
    lines = (folder / source).read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / copied).write_text(lines[0], encoding="utf-8")
    assert expected.lower() in refused(format_, folder, InputError).lower()


def test_a_folder_of_loinc_that_is_older_than_its_table_is_refused(copy):
    folder = copy("loinc").rename(copy("gems").parent / "Loinc_2.80")
    assert "changes of version 2.81, the folder is of version 2.80" in refused("loinc", folder, InputError)


def test_a_folder_of_rxnorm_of_another_date_is_refused(copy):
    folder = copy("rxnorm").rename(copy("gems").parent / "RxNorm_full_12012025")
    assert "2025-12-01 and 2026-01-05" in refused("rxnorm", folder, InputError)


@pytest.mark.parametrize(
    ("format_", "name", "line", "expected"),
    [
        ("rf2", RF2.format("Concept_Snapshot"), 3, "stands here and in line 3"),
        ("rf2", RF2.format("Relationship_Snapshot"), 2, "stands here and in line 2"),
        ("rxnorm", "rrf/RXNCONSO.RRF", 1, "stands here and in line 1"),
        ("umls", "2026AA/META/MRCONSO.RRF", 2, "stands here and in line 2"),
        ("athena", "CONCEPT.csv", 2, "stands here and in line 2"),
        ("gems", "2018_I9gem.txt", 1, "repeats an earlier one"),
        ("icd10pcs", "icd10pcs_order_2026.txt", 2, "The code 0016070 stands twice"),
    ],
)
def test_a_row_that_stands_twice_is_named(format_, name, line, expected, copy):
    folder = copy(format_)
    lines = (folder / name).read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / name).write_text("".join([*lines, lines[line - 1]]), encoding="utf-8")
    message = refused(format_, folder)
    assert f"{Path(name).name}:{len(lines) + 1}: " in message
    assert expected in message


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("E119    10000", "E119    11000", "2: The flag 'no map' and the target contradict each other."),
        ("E119    10000", "E119    10100", "2: A combination has a scenario and a choice list"),
        (
            "Z20828  10000\n",
            "Z20828  10000\nV010  NoDx    11000\n",
            "5: The line says that the code has no target",
        ),
        ("E119    10000", "E119    1000", "2: The line is not: source, target, five flags."),
    ],
)
def test_flags_of_mappings_that_contradict_each_other_are_refused(old, new, expected, copy):
    folder = copy("gems")
    edit(folder / "2018_I9gem.txt", old, new)
    assert f"2018_I9gem.txt:{expected}" in refused("gems", folder)


def test_targets_that_claim_the_same_place_of_a_map_are_refused(copy):
    folder = copy("rf2")
    lines = (folder / EXTENDED).read_text(encoding="utf-8").splitlines(keepends=True)
    lines[-1] = lines[-1].replace("\t0\t900000000000207008", "\t1\t900000000000207008")
    (folder / EXTENDED).write_text("".join(lines), encoding="utf-8")
    message = refused("rf2", folder)
    assert "ExtendedMapSnapshot_INT_20260131.txt:7: " in message
    assert "contradict each other" in message


def test_two_valid_concepts_with_one_code_are_refused(copy):
    folder = copy("athena")
    edit(folder / "CONCEPT.csv", "20000101\t20091231\tD", "20000101\t20091231\t")
    message = refused("athena", folder)
    assert "CONCEPT.csv:7: Gadget and G2 stands here and in line 6." in message


def test_a_vocabulary_that_is_not_listed_is_of_another_download(copy):
    folder = copy("athena")
    edit(folder / "VOCABULARY.csv", "Gadget\t", "Widget\t")
    assert "CONCEPT.csv:4: The vocabulary 'Gadget' is not in VOCABULARY.csv." in refused("athena", folder)


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        (
            "CONCEPT_RELATIONSHIP.csv",
            "2000000002\t2000000001",
            "2000000002\tx",
            "'concept_id_2' holds no number",
        ),
        ("CONCEPT.csv", "20151001", "20159901", "no date of the calendar"),
        ("CONCEPT.csv", "20151001", "October", "holds no date such as 20260131"),
    ],
)
def test_values_of_another_kind_are_refused(name, old, new, expected, copy):
    folder = copy("athena")
    edit(folder / name, old, new)
    message = refused("athena", folder)
    assert expected in message
    assert name in message


@pytest.mark.parametrize("name", [HIERARCHY, LINKS])
def test_accessory_files_of_another_release_are_refused(name, copy):
    folder = copy("loinc")
    edit(folder / name, "9900001-0", "9900009-3")
    message = refused("loinc", folder)
    assert "The code 9900009-3 is not in Loinc.csv." in message
    assert Path(name).name in message


def test_quotes_that_are_not_closed_are_refused(copy):
    folder = copy("loinc")
    edit(folder / "LoincTable/MapTo.csv", '"if in serum"', '"if in serum')
    assert "MapTo.csv" in refused("loinc", folder)


def test_the_dialect_decides_which_term_is_preferred(copy):
    folder = copy("rf2")
    language = folder / "Snapshot/Refset/Language/der2_cRefset_LanguageSnapshot-en_INT_20260131.txt"
    text = language.read_text(encoding="utf-8").replace("900000000000509007", "900000000000509999")
    language.write_text(text, encoding="utf-8")
    [(_, tables)] = load("rf2", folder)
    displays = dict(tables["concepts"].select("code", "display").iter_rows())
    assert displays["1029999999104"] == 'Widgetalgia "so called"'


def test_an_edition_that_is_not_known_asks_for_its_version(copy):
    folder = copy("rf2")
    for file in list(folder.rglob("*_INT_*")):
        file.rename(file.with_name(file.name.replace("_INT_", "_XX1234567_")))
    modules = next(folder.rglob("*ModuleDependency*"))
    modules.unlink()
    message = refused("rf2", folder, InputError)
    assert "--version http://snomed.info/sct/<module>/version/20260131" in message


def test_no_known_source_in_the_metathesaurus_is_refused(copy):
    folder = copy("umls")
    conso = folder / "2026AA/META/MRCONSO.RRF"
    text = conso.read_text(encoding="utf-8")
    conso.write_text(text.replace("|ICD10CM|", "|XYZ|").replace("|ICD9CM|", "|XYZ|"), encoding="utf-8")
    assert "none of the sources that are read" in refused("umls", folder, InputError)


def test_a_module_on_which_none_depends_is_that_of_an_edition_that_is_not_known(copy):
    folder = copy("rf2")
    for file in list(folder.rglob("*_INT_*")):
        file.rename(file.with_name(file.name.replace("_INT_", "_XX1234567_")))
    [(release, _)] = load("rf2", folder)
    assert release.version == "http://snomed.info/sct/900000000000207008/version/20260131"


def test_copies_of_files_that_releases_bring_along_do_not_disturb(copy):
    loinc, rxnorm = copy("loinc"), copy("rxnorm")
    shutil.copytree(
        loinc / "LoincTable", loinc / "LoincTableCore", ignore=shutil.ignore_patterns("Loinc.csv")
    )
    shutil.copytree(rxnorm / "rrf", rxnorm / "prescribe" / "rrf")
    assert load("loinc", loinc)[0][0].source.count("MapTo.csv") == 1
    assert load("rxnorm", rxnorm)[0][0].source.count("RXNCONSO.RRF") == 1


def test_the_folder_that_is_named_tells_the_version(copy, monkeypatch):
    folder = copy("loinc").rename(copy("gems").parent / "Loinc_2.82")
    monkeypatch.chdir(folder)
    assert load("loinc", Path())[0][0].version == "2.82"

"""Loaders: files in the distributors' own format, and what is wrong with files."""

import io
import json
import shutil
import tarfile
from importlib import import_module
from pathlib import Path

import polars as pl
import pytest

from cohortflow.errors import CohortflowError, InputError, MalformedDataError
from cohortflow.terminology.integrity import collect_table
from cohortflow.terminology.loaders import LOADERS
from cohortflow.terminology.tables import TABLES

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "terminology"
FILES = {
    "icd10cm": ".",
    "icd10cm_order": "icd10cm_order_2026.txt",
    "cvx": "cvx.txt",
    "ucum": "ucum-essence.xml",
    "fhir": ".",
    "athena": ".",
    "gems": ".",
    "icd10pcs": ".",
    "loinc": ".",
    "rf2": ".",
    "rxnorm": ".",
    "umls": ".",
}


def load(format_, path, version=None):
    """Load a file, and read its tables as a store does."""
    releases = LOADERS[format_](path, version=version)
    return [
        (release, {name: collect_table(release, name) for name in release.tables}) for release in releases
    ]


def describe(release, tables):
    """Return a release as JSON; system and version of a row are left out where they are the release's."""
    rows = {
        name: table if name in {"members", "maps"} else table.drop("system", "version")
        for name, table in tables.items()
    }
    return {
        "system": release.system,
        "version": release.version,
        "title": release.title,
        "licence": release.licence,
        "source": list(release.source),
        "tables": {name: table.rows() for name, table in sorted(rows.items())},
    }


def sort_rows(releases):
    """Return releases as they stand in JSON, with the rows in one order."""
    releases = json.loads(json.dumps(releases, default=str))
    for release in releases:
        release["tables"] = {name: sorted(rows, key=str) for name, rows in release["tables"].items()}
    return releases


@pytest.mark.parametrize("format_", FILES)
def test_a_distributors_file_gives_the_expected_tables(format_):
    found = [describe(*release) for release in load(format_, GOLDEN / format_ / "input" / FILES[format_])]
    expected = json.loads((GOLDEN / format_ / "expected.json").read_text(encoding="utf-8"))
    assert sort_rows(found) == sort_rows(expected)


@pytest.mark.parametrize("format_", FILES)
def test_tables_have_the_schemas_that_all_share(format_):
    for release in LOADERS[format_](GOLDEN / format_ / "input" / FILES[format_]):
        for name, frame in release.tables.items():
            assert frame.collect_schema() == TABLES[name], name


@pytest.mark.parametrize("format_", FILES)
def test_a_missing_file_is_refused(format_, tmp_path):
    with pytest.raises(InputError, match="not there"):
        load(format_, tmp_path / "none.txt")


@pytest.mark.parametrize("format_", [name for name in FILES if name != "fhir"])
def test_a_version_that_is_named_wins(format_):
    for release, _ in load(format_, GOLDEN / format_ / "input" / FILES[format_], "mine"):
        assert release.version == "mine"


class TestIcd10Cm:
    @pytest.fixture
    def folder(self, tmp_path):
        return Path(shutil.copytree(GOLDEN / "icd10cm" / "input", tmp_path / "tabular"))

    def test_without_a_list_of_codes_all_seventh_characters_are_taken(self, folder):
        (folder / "code-list-April-2026.txt").unlink()
        ((_, tables),) = load("icd10cm", folder)
        extended = tables["attributes"].filter(pl.col("value") == "extended")["code"].to_list()
        assert extended == ["T36.0X1A", "T36.0X1D", "T36.9XXS"]

    def test_an_order_file_serves_as_list_of_codes(self, folder):
        (folder / "code-list-April-2026.txt").unlink()
        line = (
            f"00001 T360X1D 1 {'Poisoning by penicillins, subs':<60} Poisoning by penicillins, subsequent\n"
        )
        (folder / "icd10cm-order-2026.txt").write_text(line)
        ((_, tables),) = load("icd10cm", folder)
        assert tables["attributes"].filter(pl.col("value") == "extended")["code"].to_list() == ["T36.0X1D"]

    def test_a_file_that_is_cut_is_refused(self, folder):
        file = folder / "icd10c-tabular-April-1-2026.xml"
        file.write_text(file.read_text()[:-200])
        with pytest.raises(MalformedDataError, match="damaged"):
            load("icd10cm", folder)

    def test_a_code_without_a_name_is_refused(self, folder):
        file = folder / "icd10c-tabular-April-1-2026.xml"
        file.write_text(file.read_text().replace("<desc>Other infectious disease</desc>", ""))
        with pytest.raises(MalformedDataError, match=r"'B99\.8' has no name"):
            load("icd10cm", folder)

    def test_the_index_is_not_taken_for_the_list(self, tmp_path):
        file = tmp_path / "icd10cm-index-2026.xml"
        file.write_text("<ICD10CM.index><version>2026</version></ICD10CM.index>")
        with pytest.raises(InputError, match="tabular list"):
            load("icd10cm", file)

    def test_two_years_in_one_folder_are_refused(self, folder):
        shutil.copy(folder / "icd10c-tabular-April-1-2026.xml", folder / "icd10c-tabular-October-1-2026.xml")
        with pytest.raises(InputError, match="More than one file"):
            load("icd10cm", folder)

    def test_without_a_date_in_its_name_the_file_tells_the_year(self, folder):
        file = folder / "tabular.xml"
        (folder / "icd10c-tabular-April-1-2026.xml").rename(file)
        assert load("icd10cm", file)[0][0].version == "2026"


class TestIcd10CmOrder:
    def write(self, tmp_path, text):
        file = tmp_path / "icd10cm_order_2026.txt"
        file.write_text(text)
        return file

    def test_another_delimiter_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="not an order file"):
            load("icd10cm_order", self.write(tmp_path, "00001\tA00\t0\tCholera\tCholera\n"))

    def test_a_line_that_is_cut_is_named(self, tmp_path):
        text = (GOLDEN / "icd10cm_order/input/icd10cm_order_2026.txt").read_text()
        file = self.write(tmp_path, text + "00008 T360\n")
        with pytest.raises(MalformedDataError) as caught:
            load("icd10cm_order", file)
        assert caught.value.place == f"{file}:8"

    def test_a_code_that_stands_twice_is_refused(self, tmp_path):
        text = (GOLDEN / "icd10cm_order/input/icd10cm_order_2026.txt").read_text()
        with pytest.raises(MalformedDataError, match="A000 stands twice"):
            load("icd10cm_order", self.write(tmp_path, text + text.splitlines()[1] + "\n"))

    def test_a_name_without_a_year_needs_a_version(self, tmp_path):
        file = tmp_path / "order.txt"
        shutil.copy(GOLDEN / "icd10cm_order/input/icd10cm_order_2026.txt", file)
        with pytest.raises(InputError, match="--version"):
            load("icd10cm_order", file)


class TestCvx:
    GOOD = "03 |MMR|measles, mumps and rubella virus vaccine||Active|95|False|2010/05/28\n"

    def write(self, tmp_path, text):
        file = tmp_path / "cvx.txt"
        file.write_text(text)
        return file

    def test_the_file_of_earlier_years_has_a_field_less(self, tmp_path):
        line = "03 |MMR|measles, mumps and rubella virus vaccine||Active|False|2010/05/28\n"
        ((release, tables),) = load("cvx", self.write(tmp_path, line))
        assert release.version == "2010-05-28"
        assert tables["concepts"]["display"].to_list() == ["MMR"]

    def test_a_header_is_no_vaccine(self, tmp_path):
        header = "CVX Code|Short Description|Full Name|Notes|Status|Internal ID|Nonvaccine|Last Updated\n"
        ((_, tables),) = load("cvx", self.write(tmp_path, header + self.GOOD))
        assert tables["concepts"]["code"].to_list() == ["03"]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("04 |M/R|measles and rubella|Active\n", "4 fields, not 8"),
            ("04 |M/R|measles and rubella||Gone|96|False|2010/05/28\n", "status"),
            ("04 |M/R|measles and rubella||Active|96|False|May 2010\n", "date"),
            ("   |M/R|measles and rubella||Active|96|False|2010/05/28\n", "no code"),
        ],
    )
    def test_a_malformed_line_is_named(self, tmp_path, line, message):
        file = self.write(tmp_path, self.GOOD + line)
        with pytest.raises(MalformedDataError, match=message) as caught:
            load("cvx", file)
        assert caught.value.place == f"{file}:2"

    def test_another_delimiter_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="bars between the fields"):
            load("cvx", self.write(tmp_path, self.GOOD.replace("|", "\t")))


class TestUcum:
    def test_another_xml_is_refused(self, tmp_path):
        file = tmp_path / "ucum-essence.xml"
        file.write_text("<root/>")
        with pytest.raises(InputError, match="essence"):
            load("ucum", file)

    def test_a_unit_without_a_name_is_refused(self, tmp_path):
        file = tmp_path / "ucum-essence.xml"
        text = (GOLDEN / "ucum/input/ucum-essence.xml").read_text()
        file.write_text(text.replace("<name>degree Celsius</name>", ""))
        with pytest.raises(MalformedDataError, match="'Cel' has no name"):
            load("ucum", file)


class TestFhir:
    SYSTEM = GOLDEN / "fhir/input/CodeSystem-example-stage.json"

    def package(self, path, files, meta=None):
        meta = {"name": "hospital.stages", "version": "2.0.0", "license": "CC0-1.0"} | (meta or {})
        with tarfile.open(path, "w:gz") as archive:
            for name, content in {**files, "package/package.json": meta}.items():
                data = json.dumps(content).encode()
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return path

    def read(self, **changes):
        return json.loads(self.SYSTEM.read_text()) | changes

    def test_a_package_gives_version_and_licence_to_resources_without(self, tmp_path):
        resource = self.read()
        del resource["version"], resource["copyright"]
        files = {
            "package/CodeSystem-stage.json": resource,
            "package/.index.json": {"files": []},
            "package/StructureDefinition-x.json": {"resourceType": "StructureDefinition"},
            "package/example/CodeSystem-y.json": self.read(url="http://example.org/y"),
            "package/other/note.json": ["no resource"],
        }
        ((release, _),) = load("fhir", self.package(tmp_path / "p.tgz", files))
        assert (release.system, release.version) == (resource["url"], "2.0.0")
        assert release.licence.startswith("CC0 1.0")
        assert release.source == ("p.tgz",)

    def test_a_bundle_gives_each_of_its_resources(self, tmp_path):
        file = tmp_path / "bundle.json"
        entries = [{"resource": self.read()}, {"resource": self.read(version="2.0.0")}, {"fullUrl": "x"}]
        file.write_text(json.dumps({"resourceType": "Bundle", "entry": entries}))
        assert [release.version for release, _ in load("fhir", file)] == ["1.1.0", "2.0.0"]

    def test_a_hierarchy_that_is_not_of_kinds_gives_no_edges(self, tmp_path):
        file = tmp_path / "parts.json"
        file.write_text(json.dumps(self.read(hierarchyMeaning="part-of", property=[])))
        ((_, tables),) = load("fhir", file)
        assert tables["edges"].is_empty()

    @pytest.mark.parametrize(
        ("name", "message"),
        [("ValueSet-example-rules.json", "made of rules"), ("not-present.json", "'not-present'")],
    )
    def test_one_resource_without_content_is_refused(self, tmp_path, name, message):
        file = GOLDEN / "fhir/input" / name
        if not file.exists():
            file = tmp_path / name
            file.write_text(json.dumps(self.read(content="not-present", concept=[])))
        with pytest.raises(InputError, match=message):
            load("fhir", file)

    def test_what_is_left_out_of_many_is_counted(self, caplog):
        load("fhir", GOLDEN / "fhir/input")
        (warning,) = caplog.messages
        assert "1 left out: The value set is made of rules" in warning

    @pytest.mark.parametrize(
        "change",
        [
            {"unmapped": {"mode": "provided"}},
            {"source": None},
            {"element": [{"target": [{"code": "x", "equivalence": "equal"}]}]},
        ],
    )
    def test_a_map_with_more_or_less_than_codes_is_refused(self, tmp_path, change):
        file = tmp_path / "map.json"
        resource = json.loads((GOLDEN / "fhir/input/ConceptMap-example-stage.json").read_text())
        resource["group"][0] |= change
        file.write_text(json.dumps(resource))
        with pytest.raises(InputError, match="not supported"):
            load("fhir", file)

    def test_a_version_in_the_url_tells_two_versions_of_a_table(self, tmp_path):
        file = tmp_path / "tables.json"
        url = "http://terminology.hl7.org/CodeSystem/v2-0360"
        entries = [{"resource": self.read(url=f"{url}|{version}")} for version in ("2.3.1", "2.7")]
        file.write_text(json.dumps({"resourceType": "Bundle", "entry": entries}))
        found = [(release.system, release.version) for release, _ in load("fhir", file)]
        assert found == [(url, "2.3.1"), (url, "2.7")]

    def test_a_page_of_an_expansion_is_not_taken_for_all_of_it(self, tmp_path):
        file = tmp_path / "page.json"
        contains = [{"system": "http://loinc.org", "code": "4548-4"}]
        expansion = {"total": 2, "contains": contains}
        value_set = {"resourceType": "ValueSet", "url": "http://example.org/v", "version": "1"}
        file.write_text(json.dumps(value_set | {"expansion": expansion}))
        with pytest.raises(InputError, match="one page of several"):
            load("fhir", file)
        file.write_text(json.dumps(value_set | {"expansion": expansion | {"total": 1}}))
        ((_, tables),) = load("fhir", file)
        assert tables["members"].rows() == [("http://loinc.org", "1", "http://example.org/v", "4548-4")]

    @pytest.mark.parametrize(
        ("content", "error", "message"),
        [
            ("{", MalformedDataError, "Not JSON"),
            ("[]", MalformedDataError, "no resource"),
            ('{"resourceType": "Patient"}', InputError, "No code system"),
            ('{"resourceType": "CodeSystem", "concept": [{"display": "x"}]}', MalformedDataError, "concept"),
            ('{"resourceType": "CodeSystem", "concept": [{"code": "x"}]}', MalformedDataError, "'url'"),
            (
                '{"resourceType": "CodeSystem", "url": "http://x", "concept": [{"code": "x"}]}',
                InputError,
                "--version",
            ),
        ],
    )
    def test_what_is_wrong_is_said(self, tmp_path, content, error, message):
        file = tmp_path / "resource.json"
        file.write_text(content)
        with pytest.raises(error, match=message):
            load("fhir", file)

    def test_two_files_of_one_version_are_refused(self, tmp_path):
        for name in ("a.json", "b.json"):
            shutil.copy(self.SYSTEM, tmp_path / name)
        with pytest.raises(MalformedDataError, match="stands twice"):
            load("fhir", tmp_path)

    def test_a_file_that_is_no_archive_is_refused(self, tmp_path):
        file = tmp_path / "package.tgz"
        file.write_bytes(b"\x1f\x8b not a package")
        with pytest.raises(InputError, match="NPM package"):
            load("fhir", file)


def test_errors_of_a_map_name_the_element(tmp_path):
    file = tmp_path / "map.json"
    resource = json.loads((GOLDEN / "fhir/input/ConceptMap-example-stage.json").read_text())
    resource["group"][0]["element"][0]["target"][0]["equivalence"] = "sometimes"
    file.write_text(json.dumps(resource))
    with pytest.raises(CohortflowError, match=r"group\[0\]\.element\[0\]\.target\[0\]"):
        load("fhir", file)


@pytest.mark.parametrize("format_", LOADERS)
def test_every_format_has_its_loader(format_):
    module = import_module(f"cohortflow.terminology.loaders.{format_}")
    assert f"load_{format_}" in module.__all__
    assert LOADERS[format_].format == format_

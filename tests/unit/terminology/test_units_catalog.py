"""The shipped units, and what a site may add to them."""

import re
import shutil
from fractions import Fraction
from pathlib import Path

import pytest
import yaml

from cohortflow.errors import CatalogError
from cohortflow.model import Catalog
from cohortflow.synthetic.codes import OBSERVATIONS
from cohortflow.terminology.systems import LOINC
from cohortflow.terminology.ucum import convert, parse_unit
from cohortflow.terminology.unit_catalog import load_unit_catalog
from cohortflow.terminology.unit_mapping import UnitStatus
from cohortflow.terminology.unit_table import UnitTable, clean_unit

# Abridged standard atomic weights, IUPAC 2021.
WEIGHTS = {
    "H": "1.0080",
    "Li": "6.94",
    "C": "12.011",
    "N": "14.007",
    "O": "15.999",
    "Mg": "24.305",
    "P": "30.974",
    "S": "32.06",
    "Ca": "40.078",
    "Fe": "55.845",
    "Co": "58.933",
    "I": "126.90",
}
# What the property in a LOINC name demands of the unit.
EXAMPLES = {
    "Mass/volume": "mg/dL",
    "Entitic Mass/volume": "mg/dL",
    "Moles/volume": "mmol/L",
    "Enzymatic activity/volume": "U/L",
    "Units/volume": "[iU]/L",
    "#/volume": "/L",
    "Mass Ratio": "mg/g",
    "Volume Fraction": "%",
    "Percentile": "%",
    "DistWidth": "%",
    "Entitic volume": "fL",
    "Entitic mean volume": "fL",
    "Entitic mass": "pg",
    "Partial pressure": "mm[Hg]",
    "Volume Rate/Area": "mL/min",
    "Score": "1",
}


@pytest.fixture(scope="module")
def shipped():
    return load_unit_catalog(Catalog.default())


@pytest.fixture(scope="module")
def table(shipped):
    return UnitTable(shipped)


class TestShipped:
    def test_every_measurement_of_the_synthetic_patients_has_its_unit(self, shipped):
        for code in OBSERVATIONS:
            if code.unit:
                assert shipped.codes[code.system, code.code].unit == code.unit

    def test_units_fit_the_property_in_the_name(self, shipped):
        checked = 0
        for entry in shipped.codes.values():
            for named in re.findall(r"\[([^\]]+)\]", entry.name):
                if named == "Ratio":  # of BMI: kg/m2
                    continue
                example = parse_unit(EXAMPLES[named])
                assert convert(parse_unit(entry.unit), example) is not None, entry
                checked += 1
        assert checked > 120

    def test_molar_masses_are_those_of_the_formulas(self):
        path = Catalog.default().path("units", "chemistry")
        checked = 0
        for name, substance in yaml.safe_load(path.read_text(encoding="utf-8"))["substances"].items():
            if "molar_mass" not in substance:
                continue
            formula = substance["source"].split(" ")[0]
            atoms = re.findall(r"([A-Z][a-z]?)(\d*)", formula)
            mass = sum(Fraction(WEIGHTS[element]) * int(count or 1) for element, count in atoms)
            assert float(mass) == pytest.approx(substance["molar_mass"], abs=0.0011), name
            checked += 1
        assert checked > 20

    def test_every_code_has_limits_and_loincs_notice(self, shipped):
        assert all(entry.plausible for entry in shipped.codes.values())
        for content in shipped.files.values():
            assert "codes" not in content or "LOINC is copyright" in content["copyright"]

    @pytest.mark.parametrize(
        ("code", "values"),
        [
            ("8310-5", [11.8, 13.7, 46.5]),  # survived accidental hypothermia, heat stroke
            ("2345-7", [5, 1500, 2656]),
            ("2157-6", [100_000, 1_000_000]),
            ("2019-8", [501]),  # survived asphyxia in grain
            ("8867-4", [0, 330]),
            ("8480-6", [0, 370, 480]),  # leg press, measured in the artery
            ("8462-4", [0, 360]),
            ("29463-7", [0.212, 635]),
            ("8302-2", [24, 272]),
            ("2571-8", [35_000]),
            ("16362-6", [5000]),
            ("777-3", [14_000]),
            ("2498-4", [16_706]),
        ],
    )
    def test_what_was_measured_in_people_is_plausible(self, shipped, code, values):
        low, high = shipped.codes[LOINC.uri, code].plausible
        assert all(low <= value <= high for value in values)

    @pytest.mark.parametrize(
        ("code", "value"),
        [
            ("8310-5", 98.6),
            ("8302-2", 1.75),
            ("718-7", 140),
            ("2885-2", 69),
            ("2951-2", 14),
            ("29463-7", 70_000),
        ],
    )
    def test_what_has_another_unit_is_not(self, shipped, code, value):
        low, high = shipped.codes[LOINC.uri, code].plausible
        assert not low <= value <= high

    def test_every_unit_and_every_spelling_is_read(self, shipped, table):
        for entry in shipped.codes.values():
            found = table.resolve(entry.system, entry.code, entry.unit)
            assert found.status is UnitStatus.CANONICAL
            assert found.conversion.changes_nothing
        for unit, texts in shipped.spellings.items():
            for text in texts:
                assert unit in table.spelled_as(text)
                assert unit in table.spelled_as(text.upper())

    def test_no_spelling_stands_twice(self, shipped):
        for unit, texts in shipped.spellings.items():
            clean = [clean_unit(text).casefold() for text in texts]
            assert len(clean) == len(set(clean)), unit


HEAD = "title: Ours\nlimits: ours\n"


@pytest.fixture
def site(tmp_path):
    """Return a function that writes files of units and reads them all."""

    def load(**files):
        folder = tmp_path / "units"
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
        return UnitTable(load_unit_catalog(Catalog(tmp_path)))

    return load


class TestSiteFiles:
    def test_a_site_adds_codes_of_its_own_system(self, site):
        table = site(
            ours=HEAD + "system: https://lab.example.org/codes\n"
            "codes:\n  CRE: {name: Creatinine, unit: mg/dL, substance: creatinine, plausible: [0, 80]}\n",
            substances="title: Ours\nsubstances:\n  creatinine: {molar_mass: 113.120, source: C4H7N3O}\n",
        )
        found = table.resolve("https://lab.example.org/codes", "CRE", "umol/L")
        assert float(found.conversion.factor) == pytest.approx(0.0113120)

    def test_the_documented_file_stands_beside_the_shipped_ones(self, site, tmp_path):
        page = (Path(__file__).resolve().parents[3] / "docs" / "units.md").read_text(encoding="utf-8")
        block = r'^```yaml title="include/catalog/units/our_lab.yaml"\n(.*?)^```$'
        (text,) = re.findall(block, page, re.MULTILINE | re.DOTALL)
        shutil.copytree(Catalog.default().root / "units", tmp_path / "units")
        table = site(our_lab=text)
        system = "https://lab.example.org/codes"
        assert table.resolve(system, "CRE", "MG per DL").status is UnitStatus.SYNONYM
        assert table.resolve(system, "HB-A1C", "%").status is UnitStatus.CONVERTED
        assert table.resolve(system, "INR", None).status is UnitStatus.SYNONYM
        assert table.resolve(LOINC.uri, "2345-7", "mgdl").status is UnitStatus.SYNONYM

    def test_an_empty_folder_knows_no_codes(self, site):
        assert site().resolve(LOINC.uri, "2345-7", "mg/dL").status is UnitStatus.NO_CANONICAL_UNIT

    @pytest.mark.parametrize(
        ("text", "line", "message"),
        [
            ("title: [1\n", 2, "Not valid YAML"),
            ("- a\n", None, "does not hold a mapping"),
            ("title: Ours\nunits: {}\n", 2, "'units': Extra inputs are not permitted"),
            (HEAD + "codes:\n  2345-8: {name: Glucose, unit: mg/dL}\n", 4, "check digit is wrong"),
            (HEAD + "codes:\n  glucose: {name: Glucose, unit: mg/dL}\n", 4, "no LOINC code"),
            (HEAD + "codes:\n  2345-7: {name: Glucose}\n", 4, "'codes.2345-7.unit': Field required"),
            (HEAD + "codes:\n  2345-7: {name: Glucose, unit: mg/DL}\n", 4, "'mg/DL': No UCUM unit"),
            (
                HEAD + "codes:\n  2345-7:\n    name: Glucose\n    unit: mg/dL\n    substance: sugar\n",
                4,
                "The substance 'sugar' is not declared",
            ),
            (
                HEAD + "codes:\n  2345-7:\n    name: Glucose\n    unit: mg/dL\n    plausible: [9, 1]\n",
                4,
                "the lowest and the highest value, in this order",
            ),
            (
                "title: Ours\ncodes:\n  2345-7: {name: Glucose, unit: mg/dL, plausible: [1, 9]}\n",
                1,
                "'limits' is missing",
            ),
            (
                HEAD + "codes:\n  2345-7: {name: A, unit: mg/dL}\n  2345-7: {name: B, unit: mg/dL}\n",
                5,
                "stands twice",
            ),
            (
                HEAD + "codes:\n  2345-7: {name: A, unit: mg/dL, "
                "rules: [{unit: g/L, factor: 7, source: nobody}]}\n",
                4,
                "contradicts another conversion",
            ),
            (
                HEAD + "codes:\n  2345-7: {name: A, unit: mg/dL, "
                "rules: [{unit: mmol/L, factor: 1/0, source: nobody}]}\n",
                4,
                "a number is needed",
            ),
            (
                HEAD + "codes:\n  2345-7: {name: A, unit: mg/dL, "
                "rules: [{unit: mmol/L, factor: 0, source: nobody}]}\n",
                4,
                "would make all values equal",
            ),
            (
                HEAD + "codes:\n  2345-7: {name: A, unit: mg/dL, without_unit: kg}\n",
                4,
                "does not convert to 'mg/dL'",
            ),
            (
                "title: Ours\nspellings:\n  mg/dL: [mgpd]\n  g/dL:\n    - MGPD\n",
                5,
                "'MGPD' is a spelling of 'mg/dL' and of 'g/dL', which differ in size",
            ),
            ("title: Ours\nspellings:\n  mgs/dl: []\n", 3, "'mgs/dl': No UCUM unit"),
            (
                "title: Ours\nsubstances:\n  x: {molar_mass: -1, source: nowhere}\n",
                3,
                "a molar mass is positive",
            ),
        ],
    )
    def test_a_fault_is_named_with_file_and_line(self, site, tmp_path, text, line, message):
        with pytest.raises(CatalogError, match=re.escape(message)) as caught:
            site(ours=text)
        file = tmp_path / "units" / "ours.yaml"
        assert caught.value.place == (f"{file}:{line}" if line else str(file))
        assert caught.value.remedy

    def test_two_files_may_not_contradict_each_other(self, site, tmp_path):
        text = HEAD + "codes:\n  2345-7: {name: Glucose, unit: mg/dL}\n"
        with pytest.raises(CatalogError, match="'2345-7' stands twice") as caught:
            site(first=text, second=text)
        assert caught.value.place == f"{tmp_path / 'units' / 'second.yaml'}:4"
        assert f"{tmp_path / 'units' / 'first.yaml'}:4" in caught.value.remedy

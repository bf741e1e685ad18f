"""Holes in the redaction, opened on purpose one at a time: the leak gate finds each.

A hole lets one column out that the policy drops, undoes one action of the kernel, or gives a column a class
that it has not. What stands behind it is a patient whose record holds it in the worst place.
"""

import base64
import copy
import dataclasses
import datetime as dt
import hashlib
import hmac
import json
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from cohortflow.errors import LeakError
from cohortflow.fhir.ndjson import read_views
from cohortflow.fhir.views import compile_view
from cohortflow.model import Catalog
from cohortflow.patterns import load_patterns
from cohortflow.redaction import NO_AGES, Action, ProjectKey, Treatment, load_policy, plan_redaction, redact
from cohortflow.redaction.leaks import LeakScan, check_leaks, collect_facts, load_common_words

pytestmark = pytest.mark.integration

CATALOG = Catalog.default()
KEY = ProjectKey.from_text("8f1d0a6b7c3e52944be0d7f3a1c86e5f02b94d7a6c1e8f30d5a27b4c9e6f1083")
KEEP = Treatment(action=Action.KEEP)
OPAQUE = "0f" * 16
ABRAM = "6c5d9ca9-54d7-42f5-bfae-a7c19cd217f2"
LOINC = "http://loinc.org"

CONTACT = "phone, e-mail or web address"
ZIP3 = "more than three digits of a postal code, or a restricted one"
UNSHIFTED = "a date that was not shifted"
UNPLANNED = "a column that the redaction plan does not let out"
OLD = "tells an age above the cap"
MASKED = "partly masked value"

PATIENTS = [
    {
        "resourceType": "Patient",
        "id": ABRAM,
        "extension": [
            {
                "url": "http://hl7.org/fhir/StructureDefinition/patient-mothersMaidenName",
                "valueString": "Lettie Boylston",
            }
        ],
        "identifier": [
            {
                "type": {
                    "coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]
                },
                "system": "urn:oid:1.2.3",
                "value": "84617390",
            },
            {"system": "http://hl7.org/fhir/sid/us-ssn", "value": "219-18-8203"},
            {"system": "urn:example:accounts", "value": "KX-7731-B"},
        ],
        "name": [{"family": "Lemke", "given": ["Abram", "Quentin"]}],
        "telecom": [
            {"system": "phone", "value": "(555) 532-1156"},
            {"system": "email", "value": "a.lemke@mail.example"},
        ],
        "gender": "male",
        "birthDate": "1965-01-13",
        "address": [
            {"line": ["167 Nikolaus Street"], "city": "Easthampton", "state": "MA", "postalCode": "01027"}
        ],
        "contact": [{"name": {"family": "Oyelaran", "given": ["Folake"]}}],
    },
    {
        "resourceType": "Patient",
        "id": OPAQUE,
        "name": [{"family": "Müller-Çelik", "given": ["Zoë"]}],
        "gender": "female",
        "birthDate": "1931-07-09",
        "address": [{"line": ["9 Rue du Lac"], "city": "Colebrook", "state": "NH", "postalCode": "03601"}],
    },
    {
        "resourceType": "Patient",
        "id": "eRoseWhite",
        "name": [{"family": "White", "given": ["Rose"]}],
        "gender": "female",
        "birthDate": "2001-12-24",
    },
    {
        "resourceType": "Patient",
        "id": "eLi",
        "name": [{"family": "李", "given": ["小龍"]}],
        "gender": "male",
        "birthDate": "1990-02-01",
    },
]
OTHERS = [
    {
        "resourceType": "Practitioner",
        "id": "eOtis",
        "name": [{"family": "Ortizano", "given": ["Otis"], "prefix": ["Dr."]}],
        "telecom": [{"system": "email", "value": "Otis.Ortizano@clinic.example"}],
    },
    {"resourceType": "Organization", "id": "eOrg", "name": "Holyoke Hill Cardiology"},
    {
        "resourceType": "Coverage",
        "id": "eCov",
        "status": "active",
        "subscriberId": "HPB 5500 7717",
        "beneficiary": {"reference": f"Patient/{ABRAM}"},
    },
    {
        "resourceType": "Device",
        "id": "eDev",
        "serialNumber": "SN-23975241619",
        "patient": {"reference": f"Patient/{ABRAM}"},
    },
    {
        "resourceType": "ImagingStudy",
        "id": "eImg",
        "status": "available",
        "subject": {"reference": f"Patient/{ABRAM}", "display": "Abram Lemke"},
        "series": [{"uid": "1.2.840.99999999.1.35073256.1588766266885"}],
    },
    {
        "resourceType": "Encounter",
        "id": "17b801ac-58e3-4f6b-8b48-8e33f3a36086",
        "status": "finished",
        "class": {"code": "AMB"},
        "subject": {"reference": f"Patient/{ABRAM}"},
        "participant": [{"individual": {"display": "Wanjiru, Esther"}}],
        "contained": [
            {"resourceType": "RelatedPerson", "id": "r", "name": [{"family": "Szymborska", "given": ["Ewa"]}]}
        ],
        "period": {"start": "2020-03-04T08:00:00Z"},
    },
]


def observation(number, patient, **elements):
    return {
        "resourceType": "Observation",
        "id": f"obs-{number}",
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": "8302-2", "display": "Body height"}]},
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": f"2020-03-{number + 1:02d}T08:00:00Z",
        **elements,
    }


OBSERVATIONS = [
    observation(1, ABRAM, valueString="Sitting"),
    observation(2, OPAQUE, valueQuantity={"value": 171, "unit": "cm"}),
    observation(
        3,
        "eRoseWhite",
        code={"coding": [{"system": "urn:oid:1.2.840", "code": "7", "display": "Ped sibling study arm"}]},
    ),
]
RESOURCES = [*PATIENTS, *OTHERS, *OBSERVATIONS]


@dataclass
class Gate:
    """The scan over one table, after one hole was opened."""

    folder: Path
    facts: pl.DataFrame

    def table(self, view, resources):
        compiled = compile_view(CATALOG.load("views", view))
        file = write(self.folder, compiled.resource, resources)
        return read_views([compiled], [file]).collect()[0][view], compiled

    def scan(self):
        return LeakScan(
            self.facts,
            common=load_common_words(CATALOG),
            patterns=load_patterns(CATALOG),
            as_of_year=2026,
            pseudonymize=pseudonymize,
        )

    def look(self, view, policy, change_plan=None, change_frame=None, resources=RESOURCES):
        """Transform, plan, redact and scan; return the rules that are broken, by column."""
        table, compiled = self.table(view, resources)
        plan = plan_redaction(view, compiled.columns, load_policy(CATALOG, policy))
        done = change_plan(plan) if change_plan else plan
        frame = redact(table.lazy(), done, KEY, as_of=dt.date(2026, 11, 1), ages=NO_AGES).collect()
        if change_frame is not None:
            frame = change_frame(frame, table)
        scan = self.scan()
        scan.add_table(view, frame.lazy(), done)
        scan.add_shifted(view, table.lazy(), frame.lazy(), done)
        report = scan.finish()
        if report.leaks:
            with pytest.raises(LeakError) as caught:
                check_leaks(report, place="here")
            self.refuse_values(str(caught.value) + json.dumps(report.to_dict()))
        return {(leak.place.removeprefix(f"{view}."), leak.rule) for leak in report.leaks}

    @staticmethod
    def refuse_values(text):
        for secret in ("emke", "Lemke", "8203", "Nikolaus", "Ortizano", ABRAM, OPAQUE, "1965", "Szymborska"):
            assert secret not in text


def write(folder, kind, resources):
    file = folder / f"{kind}.ndjson"
    file.write_text("".join(f"{json.dumps(one)}\n" for one in resources if one["resourceType"] == kind))
    return file


def pseudonymize(ids):
    return pl.Series([KEY.pseudonym("Patient", one) for one in ids], dtype=pl.String)


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    kinds = {one["resourceType"] for one in RESOURCES}
    return pl.concat(collect_facts(kind, [str(write(folder, kind, RESOURCES))]) for kind in sorted(kinds))


@pytest.fixture
def gate(tmp_path, facts):
    return Gate(tmp_path, facts)


def let_out(*columns):
    """Open the policy: these columns stay as they are."""

    def change(plan):
        entries = [
            dataclasses.replace(entry, treatment=KEEP, output=entry.column, kind="")
            if entry.column.name in columns
            else entry
            for entry in plan.columns
        ]
        return dataclasses.replace(plan, columns=tuple(entries))

    return change


def undo(column, make):
    """Break the kernel: a column is made of the table before redaction."""

    def change(frame, table):
        return frame.with_columns(table.with_columns(make.alias("@hole"))["@hole"].alias(column))

    return change


# Holes of the policy: a column of the patient view is let out. Name, column, rule.
KEPT = [
    ("family name", "family_name", "name"),
    ("given name", "given_name", "name"),
    ("record number", "mrn", "identifier"),
    ("social security number", "ssn", "identifier"),
    ("phone", "phone", CONTACT),
    ("e-mail", "email", CONTACT),
    ("address line", "address_line", "address line"),
    ("date of birth", "birth_date", "a full date"),
    ("patient's id", "patient_id", "id of the source"),
]


@pytest.mark.parametrize(("name", "column", "rule"), KEPT, ids=[f"keep {name}" for name, *_ in KEPT])
def test_column_that_the_policy_lets_out(gate, name, column, rule):
    assert (column, rule) in gate.look("patient", "safe_harbor", let_out(column))


SHA = hashlib.sha256
# Holes of the kernel. Name, view, policy, column, what it makes of the column, rule.
BROKEN = [
    ("hash left out", "patient", "safe_harbor", "patient_id", pl.col("patient_id"), "not a pseudonym"),
    (
        "id that looks like a pseudonym",
        "patient",
        "safe_harbor",
        "patient_id",
        pl.col("patient_id"),
        "id of the source",
    ),
    (
        "half-hashed reference",
        "observation",
        "safe_harbor",
        "patient_id",
        "Patient/" + pl.col("patient_id"),
        "not a pseudonym",
    ),
    ("date instead of its year", "patient", "safe_harbor", "birth_year", pl.col("birth_date"), "not a year"),
    (
        "time instead of its year",
        "observation",
        "safe_harbor",
        "effective_year",
        pl.col("effective_at"),
        "not a year",
    ),
    ("year of an age above 89", "patient", "safe_harbor", "birth_year", pl.lit(1931, pl.Int64), OLD),
    ("five digits of the ZIP code", "patient", "safe_harbor", "postal_code", pl.col("postal_code"), ZIP3),
    ("restricted ZIP code", "patient", "safe_harbor", "postal_code", pl.lit("036"), ZIP3),
    (
        "dates left as they are",
        "observation",
        "shifted_dates",
        "effective_at",
        pl.col("effective_at"),
        UNSHIFTED,
    ),
    (
        "birth dates left as they are",
        "patient",
        "shifted_dates",
        "birth_date",
        pl.col("birth_date"),
        UNSHIFTED,
    ),
    (
        "column that was dropped",
        "observation",
        "safe_harbor",
        "value_string",
        pl.col("value_string"),
        UNPLANNED,
    ),
    (
        "date of birth in a code column",
        "patient",
        "safe_harbor",
        "gender",
        pl.col("birth_date").dt.strftime("%Y-%m-%d"),
        "date of birth",
    ),
    (
        "compact date of birth in a code column",
        "patient",
        "safe_harbor",
        "gender",
        pl.col("birth_date").dt.strftime("%Y%m%d"),
        "date of birth",
    ),
    ("record number in a code column", "patient", "safe_harbor", "gender", pl.col("mrn"), "identifier"),
    (
        "record number as a number",
        "observation",
        "safe_harbor",
        "value_integer",
        pl.lit(84_617_390, pl.Int64),
        "identifier",
    ),
    ("names in a list", "patient", "safe_harbor", "gender", pl.concat_list("gender", "family_name"), "name"),
    ("names in a structure", "patient", "safe_harbor", "gender", pl.struct("gender", "family_name"), "name"),
    ("name as bytes", "patient", "safe_harbor", "gender", pl.col("family_name").cast(pl.Binary), "name"),
    (
        "name in a category",
        "patient",
        "safe_harbor",
        "gender",
        pl.col("family_name").cast(pl.Categorical),
        "name",
    ),
]


@pytest.mark.parametrize(
    ("name", "view", "policy", "column", "make", "rule"), BROKEN, ids=[hole[0] for hole in BROKEN]
)
def test_kernel_that_does_not_do_what_the_plan_says(gate, name, view, policy, column, make, rule):
    assert (column, rule) in gate.look(view, policy, change_frame=undo(column, make))


def without_a_key(algorithm):
    digests = [getattr(hashlib, algorithm)(patient["id"].encode()).hexdigest()[:32] for patient in PATIENTS]
    return pl.lit(pl.Series(digests))


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_pseudonyms_without_a_key(gate, algorithm):
    found = gate.look("patient", "safe_harbor", change_frame=undo("patient_id", without_a_key(algorithm)))
    assert found == {("patient_id", "pseudonym without a key")}


def test_mask_that_shows_what_is_behind(gate):
    def mask(plan):
        masked = let_out("family_name")(plan)
        entries = [
            dataclasses.replace(entry, treatment=Treatment(action=Action.MASK))
            if entry.column.name == "family_name"
            else entry
            for entry in masked.columns
        ]
        return dataclasses.replace(masked, columns=tuple(entries))

    shown = pl.col("family_name").str.head(3) + "***"
    found = gate.look("patient", "safe_harbor", mask, undo("family_name", shown))
    assert {("family_name", "not masked"), ("family_name", MASKED)} <= found


def encoded(text):
    return base64.b64encode(text.encode()).decode()


# Holes of the table of classes: free text counts as a safe code. What the text says, and the rule.
TEXTS = [
    ("SSN in a text", "ref. 219-18-8203 on file", "identifier"),
    ("somebody else's SSN", "spouse 517-30-1188", "pattern ssn"),
    ("SSN without dashes", "219188203", "identifier"),
    ("last four of the SSN", "XXX-XX-8203", MASKED),
    ("record number in a text", "see MRN 84617390 for history", "identifier"),
    ("account number in lower case", "acct kx7731b", "identifier"),
    ("phone", "call (555) 532-1156", CONTACT),
    ("phone with dots", "call 555.532.1156", CONTACT),
    ("phone with country code", "+1 555 532 1156", CONTACT),
    ("phone of digits only", "5555321156", CONTACT),
    ("e-mail", "results to A.Lemke@mail.example", CONTACT),
    ("e-mail in a URL", "https://x.example/?to=otis.ortizano%40clinic.example", CONTACT),
    ("somebody else's e-mail", "cc jane@home.example", "pattern email"),
    ("date of birth in words", "born January 13, 1965 at home", "date of birth"),
    ("date of birth, US", "DOB 01/13/1965", "date of birth"),
    ("any full date", "seen on 2020-03-04", "pattern date_iso"),
    ("address line", "lives at 167 Nikolaus Street, 2nd floor", "address line"),
    ("street abbreviated", "167 NIKOLAUS ST.", "address line"),
    ("town with its ZIP code", "Easthampton, 01027", "postal code with its place"),
    ("name", "discussed with Lemke at length", "name"),
    ("upper-cased name", "PT LEMKE ABRAM", "full name"),
    ("family name first", "Lemke, Abram Q.", "full name"),
    ("names run together", "user abramlemke logged on", "full name"),
    ("name without accents", "Zoe Muller-Celik", "full name"),
    ("name with umlauts written out", "Mueller-Celik", "name"),
    ("name with invisible characters", "Lem\u200bke", "name"),
    ("name with other spaces", "Abram\u00a0Lemke", "full name"),
    ("name in escapes of a URL", "?q=Zo%C3%AB%20M%C3%BCller-%C3%87elik", "full name"),
    ("names that are words", "White, Rose", "full name"),
    ("name without spaces between words", "患者李小龍は元気です", "full name"),
    ("name of staff", "Read by Dr. O. Ortizano", "name"),
    ("name that only a reference shows", "per Esther Wanjiru RN", "full name"),
    ("name of a relative", "Folake Oyelaran called", "full name"),
    ("mother's maiden name", "nee Boylston", "name"),
    ("name in a contained resource", "Szymborska present", "name"),
    ("organisation's name", "referred by HOLYOKE HILL CARDIOLOGY", "organisation's name"),
    ("health plan number", "plan HPB-5500-7717", "identifier"),
    ("device's serial number", "pump sn23975241619", "identifier"),
    ("DICOM UID", "series 1.2.840.99999999.1.35073256.1588766266885", "identifier"),
    ("reference", f"Patient/{ABRAM}", "pattern fhir_reference"),
    ("id in a URL", f"https://ehr.example/chart/{ABRAM}/labs", "id of the source"),
    ("id of another resource", "17b801ac-58e3-4f6b-8b48-8e33f3a36086", "pattern uuid"),
    ("partly masked name", "Lem*** A.", MASKED),
    ("base64", encoded("Note: Abram Lemke was seen today"), "full name"),
    ("base64 that is cut off", "x " + encoded("Note: Abram Lemke was seen today")[:-5], "full name"),
    (
        "base64 of a URL, without padding",
        encoded("??? Lemke ~~~ Abram ???").rstrip("=").replace("/", "_"),
        "name",
    ),
]


@pytest.mark.parametrize(("name", "text", "rule"), TEXTS, ids=[name for name, *_ in TEXTS])
def test_text_that_is_taken_for_a_safe_code(gate, name, text, rule):
    resources = copy.deepcopy(RESOURCES)
    resources[-3]["valueString"] = text
    found = gate.look("observation", "safe_harbor", let_out("value_string"), resources=resources)
    assert ("value_string", rule) in found


def test_local_display_text(gate):
    found = gate.look("observation", "safe_harbor", let_out("code_display"))
    assert found == {("code_display", "local display text")}


@pytest.mark.parametrize("policy", CATALOG.names("redaction"))
@pytest.mark.parametrize("view", ["patient", "observation", "encounter", "device", "imaging_study"])
def test_without_a_hole_nothing_is_found(gate, view, policy):
    assert gate.look(view, policy) == set()


HARMLESS = [
    ("word that is a name", "White blood cells, rose colored"),
    ("number in a code", "LOINC 8302-2, SNOMED 271649006"),
    ("part of a longer word", "Lemkeite deposits"),
    ("part of a longer number", "1219188203999"),
    ("pseudonym", hmac.digest(b"k", b"v", SHA).hex()[:32]),
    ("plain base64 of nobody", encoded("Chest X-ray without findings today")),
]


@pytest.mark.parametrize(("name", "text"), HARMLESS, ids=[name for name, _ in HARMLESS])
def test_text_that_names_nobody(gate, name, text):
    resources = copy.deepcopy(RESOURCES)
    resources[-3]["valueString"] = text
    assert gate.look("observation", "safe_harbor", let_out("value_string"), resources=resources) == set()


def test_number_among_codes_counts_where_the_row_is_its_owners(gate):
    """A code that everybody may have is no record number, though somebody's is the same."""
    table, compiled = gate.table("patient", RESOURCES)
    plan = plan_redaction("patient", compiled.columns, load_policy(CATALOG, "safe_harbor"))
    frame = redact(table.lazy(), plan, KEY, as_of=dt.date(2026, 11, 1), ages=NO_AGES).collect()
    scan = gate.scan()
    scan.add_table("patient", frame.with_columns(pl.lit("84617390").alias("gender")).lazy(), plan)
    report = scan.finish()
    assert [(leak.rule, leak.count) for leak in report.leaks] == [("identifier", 1)]


def test_documents(gate):
    scan = gate.scan()
    scan.add_document("page.html", "<td>Zo&#235; M&uuml;ller-&Ccedil;elik</td> 12 rows")
    counts = json.dumps({"rows": 84617390, "note": "owner Lemke"})
    scan.add_document("result.json", counts, known="Owner: Lemke")
    scan.add_document("other.json", json.dumps({"sample": "Patient/eLi"}))
    report = scan.finish()
    assert {(leak.place, leak.rule) for leak in report.leaks} == {
        ("page.html", "full name"),
        ("page.html", "name"),
        ("other.json", "pattern fhir_reference"),
    }
    assert report.documents == ("page.html", "result.json", "other.json")

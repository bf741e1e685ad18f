"""Terminologies in memory: a little of SNOMED CT, LOINC and ICD-10-CM."""

from dataclasses import dataclass

import polars as pl

from cohortflow.errors import InputError
from cohortflow.terminology.hierarchy import close_hierarchy
from cohortflow.terminology.tables import ATTRIBUTES, CLOSURE, CONCEPTS, EDGES, MEMBERS

SNOMED, LOINC = "http://snomed.info/sct", "http://loinc.org"
ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"
FINDING, DISORDER, DIABETES, TYPE_1, TYPE_2, RETIRED = (
    "404684003",
    "64572001",
    "73211009",
    "46635009",
    "44054006",
    "190372001",
)
RETINOPATHY, SITE, EYE, RETINA, PANCREAS, REFSET = (
    "4855003",
    "363698007",
    "81745001",
    "5665001",
    "15776009",
    "700043003",
)


def make_tables(system, version, concepts, edges=(), attributes=(), members=()):
    """Build the tables of a release from bare codes."""
    own = (system, version)
    child_parent = pl.DataFrame(list(edges), schema=["child", "parent"], orient="row")
    tables = {
        "concepts": pl.DataFrame(
            [(*own, code, display, active, None, None) for code, display, active in concepts],
            CONCEPTS,
            orient="row",
        )
    }
    if edges:
        pairs = close_hierarchy(child_parent, place="test").to_frame()
        both = pl.DataFrame({"system": [system] * len(pairs), "version": [version] * len(pairs)})
        tables["edges"] = pl.DataFrame([(*own, *edge) for edge in edges], EDGES, orient="row")
        tables["closure"] = pl.concat([both, pairs], how="horizontal").select(CLOSURE.names())
    if attributes:
        tables["attributes"] = pl.DataFrame([(*own, *row) for row in attributes], ATTRIBUTES, orient="row")
    if members:
        tables["members"] = pl.DataFrame([(*own, *row) for row in members], MEMBERS, orient="row")
    return {name: table.lazy() for name, table in tables.items()}


@dataclass(frozen=True)
class Loaded:
    version: str
    digest: str


class Source:
    """Loaded terminologies in memory."""

    def __init__(self, releases):
        self.releases = releases

    def release(self, system, version=None):
        versions = sorted(v for s, v in self.releases if s == system and version in {None, v})
        if not versions:
            raise InputError("Not loaded.", remedy="Load it.")
        return Loaded(versions[-1], f"{system} {versions[-1]}")

    def tables(self, system, version=None):
        return self.releases[system, self.release(system, version).version]


SCT_CONCEPTS = [
    (FINDING, "Clinical finding", True),
    (DISORDER, "Disease", True),
    (DIABETES, "Diabetes mellitus", True),
    (TYPE_1, "Diabetes mellitus type 1", True),
    (TYPE_2, "Diabetes mellitus type 2", True),
    (RETINOPATHY, "Retinopathy due to diabetes mellitus", True),
    (RETIRED, "Type II diabetes (retired)", False),
    (SITE, "Finding site", True),
    (EYE, "Eye structure", True),
    (RETINA, "Retinal structure", True),
    (PANCREAS, "Pancreatic structure", True),
    (REFSET, "A reference set", True),
]
SCT_EDGES = [
    (DISORDER, FINDING),
    (DIABETES, DISORDER),
    (TYPE_1, DIABETES),
    (TYPE_2, DIABETES),
    (RETINOPATHY, DISORDER),
    (RETINA, EYE),
]
SCT_ATTRIBUTES = [(DIABETES, SITE, PANCREAS), (TYPE_2, SITE, PANCREAS), (RETINOPATHY, SITE, RETINA)]
SCT = make_tables(
    SNOMED,
    "2026",
    SCT_CONCEPTS,
    SCT_EDGES,
    SCT_ATTRIBUTES,
    [(REFSET, TYPE_1), (REFSET, RETINOPATHY), (REFSET, RETIRED)],
)
OLDER = make_tables(SNOMED, "2025", SCT_CONCEPTS[:4], SCT_EDGES[:3])
CHOLESTEROL = ["14647-2", "2093-3", "48620-9", "9342-7", "2096-1", "35200-5", "48089-7", "55838-7"]
LNC = make_tables(
    LOINC,
    "2.82",
    [
        *((code, f"d {code}", True) for code in CHOLESTEROL),
        ("5932-9", "Strip", True),
        ("LP43571-6", "Part", True),
        ("718-7", "Hb", True),
    ],
    [(code, "LP43571-6") for code in [*CHOLESTEROL, "5932-9"]],
    [
        *((code, "component", "Cholesterol") for code in CHOLESTEROL),
        ("718-7", "component", "Hemoglobin"),
        ("2093-3", "scale", "Qn"),
        ("5932-9", "scale", "Ord"),
    ],
)
ICD = make_tables(
    ICD10CM,
    "2026",
    [
        (code, f"d {code}", True)
        for code in ("E09", "E10", "E10.9", "E11", "E11.6", "E11.65", "E14", "I10", "E15")
    ],
    [("E10.9", "E10"), ("E11.6", "E11"), ("E11.65", "E11.6")],
)
SOURCE = Source(
    {(SNOMED, "2025"): OLDER, (SNOMED, "2026"): SCT, (LOINC, "2.82"): LNC, (ICD10CM, "2026"): ICD}
)

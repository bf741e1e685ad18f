"""Laws of the mapping that hold for every frame."""

import polars as pl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cohortflow.terminology import (
    CodeMapping,
    canonical_code,
    canonical_system,
    code_expr,
    map_codes,
    measure_coverage,
    parse_concept_map,
    system_expr,
)

SNOMED = "http://snomed.info/sct"
ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"
SYSTEMS = st.sampled_from([SNOMED, "SNOMED CT", "urn:oid:2.16.840.1.113883.6.90", ICD10CM, "local", "", None])
CODES = st.sampled_from(["100001", "100002", "100003", " 100001", "E119", "e11.9", "E11.9", "NA", "", None])
ROWS = st.lists(st.tuples(SYSTEMS, CODES), max_size=30)
RELATIONSHIPS = (
    "equivalent",
    "source-is-narrower-than-target",
    "source-is-broader-than-target",
    "related-to",
    "not-related-to",
)
TARGETS = st.lists(
    st.tuples(st.sampled_from(["E11.9", "E11.8", "I10", "J45"]), st.sampled_from(RELATIONSHIPS)),
    max_size=4,
    unique_by=lambda target: target[0] if target[1] != "not-related-to" else None,
)
ELEMENTS = st.dictionaries(st.sampled_from(["100001", "100002", "100003"]), TARGETS, min_size=1)
REASONS = {"no source code", "system not in map", "code not in map", "no target"}


def build(elements):
    element = [
        {"code": code, "target": [{"code": c, "relationship": r} for c, r in targets]}
        for code, targets in elements.items()
    ]
    data = {
        "resourceType": "ConceptMap",
        "group": [{"source": SNOMED, "target": ICD10CM, "element": element}],
    }
    return parse_concept_map(data, name="m", place="m.json")


def to_frame(rows):
    return pl.DataFrame(
        [(number, system, code) for number, (system, code) in enumerate(rows)],
        schema={"row": pl.Int64, "code_system": pl.String, "code": pl.String},
        orient="row",
    )


def run(frame, elements, cardinality="best"):
    mapping = CodeMapping(maps=("m",), prefix="to", cardinality=cardinality)
    return map_codes(frame.lazy(), mapping, [build(elements)]).collect(), mapping


def expected_targets(system, code, elements):
    """What the rules say for one row, in plain Python."""
    if code is None or not code.strip():
        return [(None, "no source code")]
    system = canonical_system(system) if system and system.strip() else None
    code = canonical_code(system or "", code)
    if system == ICD10CM:
        return [(code, None)] if code == "E11.9" else [(None, "code not in map")]
    if system != SNOMED:
        return [(None, "system not in map")]
    if code not in elements:
        return [(None, "code not in map")]
    ranked = sorted(
        (RELATIONSHIPS.index(r), order, c)
        for order, (c, r) in enumerate(elements[code])
        if r != "not-related-to"
    )
    return [(c, None) for _, _, c in ranked] or [(None, "no target")]


@given(ROWS, ELEMENTS)
@settings(max_examples=60, deadline=None)
def test_every_row_stays_once_in_its_place_with_what_the_rules_say(rows, elements):
    frame = to_frame(rows)
    result, _ = run(frame, elements)
    assert result.select(frame.columns).equals(frame)
    assert result.select("to_code", "to_unmapped_reason").rows() == [
        expected_targets(system, code, elements)[0] for system, code in rows
    ]


@given(ROWS, ELEMENTS)
@settings(max_examples=60, deadline=None)
def test_all_gives_every_target_of_every_row_and_loses_none(rows, elements):
    result, mapping = run(to_frame(rows), elements, "all")
    expected = [
        (number, *target)
        for number, (system, code) in enumerate(rows)
        for target in expected_targets(system, code, elements)
    ]
    assert result.select("row", "to_code", "to_unmapped_reason").rows() == expected
    assert measure_coverage(result.lazy(), mapping).rows == len(rows)


@given(ROWS, ELEMENTS)
@settings(max_examples=60, deadline=None)
def test_a_row_has_a_target_or_a_reason_never_both(rows, elements):
    result, _ = run(to_frame(rows), elements)
    for code, reason in result.select("to_code", "to_unmapped_reason").rows():
        assert (code is None) == (reason is not None)
        assert reason is None or reason in REASONS


@given(ROWS, ELEMENTS, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_rows_does_not_matter(rows, elements, random):
    frame = to_frame(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    shuffled, _ = run(frame[order], elements)
    result, _ = run(frame, elements)
    assert shuffled.sort("row").equals(result)


@given(ROWS, ELEMENTS)
@settings(max_examples=40, deadline=None)
def test_mapping_what_was_mapped_changes_nothing(rows, elements):
    first, _ = run(to_frame(rows), elements)
    mapping = CodeMapping(maps=("m",), code="to_code", system="to_system", prefix="again")
    second = map_codes(first.lazy(), mapping, [build(elements)]).collect()
    assert second["again_code"].to_list() == first["to_code"].to_list()


SPELLING = st.one_of(
    st.sampled_from(
        [SNOMED, ICD10CM, "SNOMED-CT", "urn:oid:2.16.840.1.113883.6.1", "I10C", "http://loinc.org/"]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
)
CODE_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)


@given(st.lists(st.tuples(SPELLING, CODE_TEXT), min_size=1, max_size=20))
@example([(ICD10CM, ".")])
@example([(ICD10CM, ". 0")])
@settings(max_examples=100, deadline=None)
def test_the_expressions_agree_with_the_functions_and_are_idempotent(rows):
    frame = pl.DataFrame(rows, schema=["system", "code"], orient="row")
    once = frame.select(system_expr(pl.col("system")).alias("system"), "code").with_columns(
        code_expr(pl.col("system"), pl.col("code")).alias("code")
    )
    systems = [canonical_system(system) or None for system, _ in rows]
    codes = [canonical_code(s or "", code) or None for s, (_, code) in zip(systems, rows, strict=True)]
    assert once.rows() == list(zip(systems, codes, strict=True))
    twice = once.select(
        system_expr(pl.col("system")).alias("system"),
        code_expr(pl.col("system"), pl.col("code")).alias("code"),
    )
    assert twice.equals(once)

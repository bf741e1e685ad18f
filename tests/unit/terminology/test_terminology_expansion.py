"""Value sets expanded with the tables of terminologies."""

import polars as pl
import pytest
from loaded_terminologies import (
    DIABETES,
    DISORDER,
    EYE,
    FINDING,
    ICD10CM,
    LOINC,
    OLDER,
    PANCREAS,
    REFSET,
    RETINA,
    RETINOPATHY,
    RETIRED,
    SCT,
    SCT_CONCEPTS,
    SITE,
    SNOMED,
    SOURCE,
    TYPE_1,
    TYPE_2,
    Source,
    make_tables,
)

from cohortflow.errors import CatalogError, ConfigurationError, InputError
from cohortflow.terminology.compose import implicit_value_set, parse_compose
from cohortflow.terminology.ecl import parse_ecl
from cohortflow.terminology.ecl_evaluate import evaluate_ecl
from cohortflow.terminology.expansion import expand, expansion_key, to_value_set
from cohortflow.terminology.tables import MEMBERS


def rule(prop, op, value):
    return {"property": prop, "op": op, "value": value}


def part(system, *rules, **more):
    return {"system": system, "filter": list(rules), **more}


def read(*include, exclude=(), find=lambda _: None, **more):
    data = {
        "resourceType": "ValueSet",
        "compose": {"include": list(include), "exclude": list(exclude), **more},
    }
    return parse_compose(data, name="test", place="test.json", find=find)


def codes(compose, source=SOURCE):
    return set(expand(compose, source).collect()["code"])


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        ("is-a", {DIABETES, TYPE_1, TYPE_2}),
        ("descendent-of", {TYPE_1, TYPE_2}),
        ("child-of", {TYPE_1, TYPE_2}),
        ("generalizes", {DIABETES, DISORDER, FINDING}),
        ("=", {DIABETES}),
        ("is-not-a", {FINDING, DISORDER, RETINOPATHY, SITE, EYE, RETINA, PANCREAS, REFSET}),
    ],
)
def test_the_operators_of_the_hierarchy(op, expected):
    assert codes(read(part(SNOMED, rule("concept", op, DIABETES)))) == expected


def test_leaves_below_a_concept():
    assert codes(read(part(SNOMED, rule("concept", "descendent-leaf", FINDING)))) == {
        TYPE_1,
        TYPE_2,
        RETINOPATHY,
    }


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([rule("COMPONENT", "=", "Cholesterol"), rule("SCALE_TYP", "=", "Qn")], {"2093-3"}),
        ([rule("scale", "exists", "true")], {"2093-3", "5932-9"}),
        ([rule("component", "regex", "Hem.*")], {"718-7"}),
        ([rule("scale", "in", "Ord, Nom")], {"5932-9"}),
        ([rule("component", "not-in", "Cholesterol"), rule("code", "regex", "[0-9-]+")], {"5932-9", "718-7"}),
        ([rule("display", "=", "Hb")], {"718-7"}),
        ([rule("code", "in", "718-7,5932-9")], {"718-7", "5932-9"}),
    ],
)
def test_the_operators_of_properties(rules, expected):
    assert codes(read(part(LOINC, *rules))) == expected


def test_a_relationship_may_lead_below_a_concept():
    assert codes(read(part(SNOMED, rule(SITE, "is-a", EYE)))) == {RETINOPATHY}


def test_a_listed_code_has_the_name_that_the_set_gives_it_or_else_the_versions():
    compose = read(
        {
            "system": LOINC,
            "version": "2.82",
            "concept": [{"code": "14647-2", "display": "Cholesterol [Moles/Volume]"}, {"code": "2093-3"}],
        }
    )
    assert expand(compose, SOURCE).collect().rows() == [
        (LOINC, "2.82", "14647-2", "Cholesterol [Moles/Volume]"),
        (LOINC, "2.82", "2093-3", "d 2093-3"),
    ]


def test_ranges_and_wildcards_of_icd_10():
    assert codes(read(part(ICD10CM, rule("code", "in", "E10-E14")))) == {
        "E10",
        "E10.9",
        "E11",
        "E11.6",
        "E11.65",
        "E14",
    }
    assert codes(read(part(ICD10CM, rule("code", "in", "E11.*, I10")))) == {"E11.6", "E11.65", "I10"}
    assert codes(read(part(ICD10CM, rule("concept", "is-a", "e116")))) == {"E11.6", "E11.65"}


def test_a_set_is_pinned_to_a_version():
    newest = read(part(SNOMED, rule("concept", "is-a", DISORDER)))
    pinned = read(part(SNOMED, rule("concept", "is-a", DISORDER), version="2025"))
    assert codes(pinned) == {DISORDER, DIABETES, TYPE_1}
    assert codes(newest) > codes(pinned)
    only_old = Source({(SNOMED, "2025"): OLDER})
    assert codes(pinned, only_old) == codes(pinned)
    assert expansion_key(pinned, only_old) == expansion_key(pinned, SOURCE)
    assert expansion_key(newest, only_old) != expansion_key(newest, SOURCE)


def test_retired_codes_are_members_where_listed_or_asked_for():
    everything = part(SNOMED, rule("code", "regex", "19.*"))
    assert codes(read(everything)) == set()
    assert codes(read(everything, inactive=True)) == {RETIRED}
    assert codes(read({"system": SNOMED, "concept": [{"code": RETIRED}]})) == {RETIRED}


def test_parts_are_intersected_and_sets_united_without_the_excluded():
    diabetes = read(part(SNOMED, rule("concept", "is-a", DIABETES)))
    compose = read(
        {
            "valueSet": ["http://example.org/d"],
            "system": SNOMED,
            "concept": [{"code": TYPE_1}, {"code": RETINOPATHY}],
        },
        {"valueSet": [f"{SNOMED}?fhir_vs=refset/{REFSET}"]},
        exclude=[part(SNOMED, rule("constraint", "=", f"* : {SITE} = *"))],
        find={"http://example.org/d": diabetes}.get,
    )
    assert codes(compose) == {TYPE_1}


def test_a_published_set_of_a_terminology_is_found_by_its_url():
    url = "http://example.org/ValueSet/published"
    source = Source(
        {
            **SOURCE.releases,
            (url, "1"): {"members": pl.LazyFrame([(SNOMED, "1", url, TYPE_2)], MEMBERS, orient="row")},
        }
    )
    assert codes(read({"valueSet": [url]}), source) == {TYPE_2}
    assert codes(read({"valueSet": [f"{url}|1"]}), source) == {TYPE_2}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"<< {DIABETES} |Diabetes|", {DIABETES, TYPE_1, TYPE_2}),
        (f"< {DISORDER} MINUS << {DIABETES}", {RETINOPATHY}),
        (f"<! {DIABETES} OR >! {DIABETES}", {TYPE_1, TYPE_2, DISORDER}),
        (f"> {DIABETES} AND < {FINDING}", {DISORDER}),
        (f">> {DIABETES}", {DIABETES, DISORDER, FINDING}),
        (f"<<! {DISORDER}", {DISORDER, DIABETES, RETINOPATHY}),
        (f"^ {REFSET}", {TYPE_1, RETINOPATHY}),
        (f"< {FINDING} : {SITE} = << {EYE}", {RETINOPATHY}),
        (f"< {FINDING} : {{ {SITE} = << {EYE} }}", {RETINOPATHY}),
        (f"< {FINDING} : {SITE} != << {EYE}", {DIABETES, TYPE_2}),
        (f"* : {SITE} = {RETINA} OR {SITE} = {PANCREAS}", {RETINOPATHY, DIABETES, TYPE_2}),
        (f"<< {DIABETES} : ({SITE} = * , {SITE} = {PANCREAS})", {DIABETES, TYPE_2}),
        (f"(^ {REFSET}) AND (<< {DIABETES})", {TYPE_1}),
        (f"{RETIRED} OR {TYPE_1}", {TYPE_1}),
        (f"<< {DIABETES} /* a remark */ minus {TYPE_1}", {DIABETES, TYPE_2}),
    ],
)
def test_expression_constraints(text, expected):
    assert set(evaluate_ecl(parse_ecl(text), SCT, release="test").collect()["code"]) == expected


@pytest.mark.parametrize(
    ("text", "character", "problem"),
    [
        ("", 1, "missing"),
        ("< 404684003 AND < 64572001 OR < 73211009", 28, "brackets"),
        ("< 404684003 MINUS 1234567 MINUS 7654321", 27, "brackets"),
        ("(< 404684003", 13, "')' is missing"),
        ("< 404684003 :", 14, "missing"),
        ("< 404684003 : 363698007", 24, "'='"),
        ("< 404684003 . 363698007", 13, "dotted"),
        ("< 404684003 : [1..3] 363698007 = *", 15, "Cardinality"),
        ("< 404684003 : { 363698007 = *, 116676008 = * }", 15, "role group"),
        ("< 404684003 : R 363698007 = *", 15, "reversed"),
        ('< 404684003 {{ term = "x" }}', 13, "filter"),
        ("< diabetes", 3, "missing"),
        ("< 404684003 & 1", 13, "not understood"),
        ("(" * 200 + "1234567" + ")" * 200, 65, "nested"),
    ],
)
def test_a_faulty_constraint_is_refused_with_its_place(text, character, problem):
    with pytest.raises(InputError) as caught:
        parse_ecl(text)
    assert caught.value.place.endswith(f"character {character}")
    assert problem in caught.value.message


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"{SNOMED}?fhir_vs=isa/{DIABETES}", {DIABETES, TYPE_1, TYPE_2}),
        (f"{SNOMED}?fhir_vs=refset/{REFSET}", {TYPE_1, RETINOPATHY}),
        (f"{SNOMED}?fhir_vs=ecl/%3C{DIABETES}%20AND%20%5E{REFSET}", {TYPE_1}),
        (f"{SNOMED}?fhir_vs", {code for code, _, active in SCT_CONCEPTS if active}),
    ],
)
def test_implicit_value_sets_of_snomed_ct(url, expected):
    assert codes(implicit_value_set(url)) == expected


def test_an_implicit_set_may_name_its_edition():
    edition = f"{SNOMED}/900000000000207008/version/20260101"
    compose = implicit_value_set(f"{edition}?fhir_vs=isa/{DIABETES}")
    assert compose.include[0].version == edition
    assert implicit_value_set("http://example.org/ValueSet/x") is None
    with pytest.raises(InputError, match="not known"):
        implicit_value_set(f"{SNOMED}?fhir_vs=whatever/1")


def test_an_expansion_tests_columns_for_membership():
    compose = read(part(SNOMED, rule("concept", "is-a", DIABETES)))
    value_set = to_value_set(compose, expand(compose, SOURCE).collect())
    frame = pl.DataFrame({"s": ["SNOMED CT", SNOMED, ICD10CM, None], "c": [TYPE_1, FINDING, TYPE_1, TYPE_1]})
    assert frame.select(value_set.matches(pl.col("s"), pl.col("c"))).to_series().to_list() == [
        True,
        False,
        False,
        False,
    ]
    empty = to_value_set(compose, expand(compose, SOURCE).collect().clear())
    assert not frame.select(empty.matches(pl.col("s"), pl.col("c"))).to_series().any()


class Cache(dict):
    put = dict.__setitem__


def test_an_expansion_is_computed_once():
    cache, compose = Cache(), read(part(SNOMED, rule("concept", "is-a", DIABETES)))
    first = expand(compose, SOURCE, cache=cache).collect()
    (key,) = cache
    cache[key] = first.head(1)
    assert expand(compose, SOURCE, cache=cache).collect().height == 1
    renamed = parse_compose(
        {
            "resourceType": "ValueSet",
            "title": "other",
            "compose": {"include": [part(SNOMED, rule("concept", "is-a", DIABETES))]},
        },
        name="other",
        place="o",
    )
    assert expansion_key(renamed, SOURCE) == key


def test_what_is_not_loaded_is_named_with_the_command():
    rules = [rule("concept", "is-a", DIABETES)]
    with pytest.raises(ConfigurationError) as caught:
        codes(read(part(SNOMED, *rules)), Source({}))
    assert SNOMED in str(caught.value)
    assert "cohortflow terminology load" in caught.value.remedy
    with pytest.raises(ConfigurationError, match="version 1999"):
        codes(read(part(SNOMED, *rules, version="1999")))
    flat = Source({(SNOMED, "1"): make_tables(SNOMED, "1", SCT_CONCEPTS)})
    with pytest.raises(ConfigurationError, match="hierarchy"):
        codes(read(part(SNOMED, *rules)), flat)
    with pytest.raises(ConfigurationError, match="value set"):
        codes(read({"valueSet": ["http://example.org/none"]}))


def test_listed_codes_need_no_terminology():
    rows = expand(
        read({"system": "http://example.org/local", "concept": [{"code": "NA", "display": "None"}]}),
        Source({}),
    )
    assert rows.collect().rows() == [("http://example.org/local", None, "NA", "None")]


@pytest.mark.parametrize(
    "rules", [rule("concept", "is-a", "7321100"), rule("COLOUR", "=", "red"), rule("parent", "=", "1")]
)
def test_a_filter_that_can_choose_nothing_is_refused(rules):
    with pytest.raises(InputError):
        codes(read(part(LOINC, rules)))


@pytest.mark.parametrize(
    "rules",
    [
        rule("concept", "below", "1"),
        rule("constraint", "=", "<<"),
        rule("constraint", "is-a", "<< 73211009"),
        rule("code", "regex", "E("),
        rule("concept", "exists", "maybe"),
    ],
)
def test_a_faulty_filter_is_refused_when_the_set_is_read(rules):
    with pytest.raises(CatalogError) as caught:
        read(part(SNOMED, rules))
    assert "compose.include[0].filter[0]" in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("value", ["E14-E10", "E10-E1", "E1*1", "E11,,I10", "hello"])
def test_a_faulty_list_of_codes_is_refused(value):
    with pytest.raises(CatalogError):
        read(part(ICD10CM, rule("code", "in", value)))

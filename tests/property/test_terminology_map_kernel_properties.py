"""Laws of maps with rules, successors and paths, and of value sets, against plain Python."""

from dataclasses import dataclass

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from cohortflow.terminology import CodeMapping, Relationship, map_codes
from cohortflow.terminology.compose import parse_compose
from cohortflow.terminology.expansion import expand
from cohortflow.terminology.hierarchy import close_hierarchy
from cohortflow.terminology.map_lookup import MapContent
from cohortflow.terminology.map_table import MapTable, compose_maps
from cohortflow.terminology.mapping import PatientContext
from cohortflow.terminology.tables import CLOSURE, CONCEPTS, EDGES, MAPS

SNOMED, ICD10 = "http://snomed.info/sct", "http://hl7.org/fhir/sid/icd-10"
CODES = ["100001", "100002", "100003", "100004"]
FEMALE, MALE = "IFA 248152002 | Female (finding) |", "IFA 248153007 | Male (finding) |"
CHILD = "IFA 445518008 | Age at onset | < 12.0 years"
OTHER = "IFA 77386006 | Pregnant (finding) |"
RULES = st.sampled_from([FEMALE, MALE, CHILD, OTHER, "OTHERWISE TRUE", "TRUE", f"{FEMALE} AND {CHILD}"])
# For each code its groups, and in each group the alternatives: rule and target.
GROUP = st.lists(st.tuples(RULES, st.sampled_from(["A00", "B00", "C00", None])), min_size=1, max_size=4)
RULED = st.dictionaries(st.sampled_from(CODES[:3]), st.lists(GROUP, min_size=1, max_size=2), min_size=1)
ROWS = st.lists(
    st.tuples(
        st.sampled_from([SNOMED, "SCT", "local", None]),
        st.sampled_from([*CODES, " 100001", "NA", "", None]),
        st.sampled_from(["female", "male", "other", None]),
        st.sampled_from([3.0, 12.0, 40.0, None]),
    ),
    max_size=25,
)
SCHEMA = {"row": pl.Int64, "code_system": pl.String, "code": pl.String, "sex": pl.String, "age": pl.Float64}


def to_frame(rows):
    return pl.LazyFrame([(n, *row) for n, row in enumerate(rows)], schema=SCHEMA, orient="row")


def build(ruled):
    entries = [
        ("m", "1", SNOMED, code, ICD10, target, None, "related-to", g, p, rule, None)
        for code, groups in ruled.items()
        for g, group in enumerate(groups, start=1)
        for p, (rule, target) in enumerate(group, start=1)
    ]
    table = pl.DataFrame([(*entry, order) for order, entry in enumerate(entries)], schema=MAPS, orient="row")
    return MapTable("m", "m|1", table)


def decide(rule, sex, age):
    """True, False, or None where the row does not tell."""
    known_sex = sex if sex in {"female", "male"} else None
    facts = {
        FEMALE: known_sex and known_sex == "female",
        MALE: known_sex and known_sex == "male",
        CHILD: None if age is None else age < 12,
        OTHER: None,
    }
    verdicts = [facts[clause] for clause in rule.split(" AND ") if clause in facts]
    if False in verdicts:
        return False
    return None if None in verdicts else True


def expected(ruled, code, sex, age, *, default, best=False):
    """Targets, and whether any choice was in doubt."""
    targets, doubt = [], False
    for group in ruled[code]:
        undecided = False
        for rule, target in group:
            verdict = decide(rule, sex, age)
            if verdict is None:
                undecided = True
            elif verdict:
                if target is not None and (default or not undecided):
                    targets.append(target)
                    if best:
                        return targets, doubt
                break
        doubt = doubt or undecided
        if best and undecided:  # no later group stands in for it
            break
    return targets, doubt


@given(ROWS, RULED, st.booleans(), st.booleans())
@settings(max_examples=120, deadline=None)
def test_rules_choose_what_plain_python_chooses_and_no_row_is_lost(rows, ruled, default, best):
    mapping = CodeMapping(
        maps=("m",),
        prefix="to",
        cardinality="best" if best else "all",
        context=PatientContext(sex="sex", age="age"),
        undecided="default" if default else "unmapped",
    )
    result = map_codes(to_frame(rows), mapping, [build(ruled)]).collect()
    wanted = []
    for number, (system, code, sex, age) in enumerate(rows):
        plain = (code or "").strip()
        if system in {SNOMED, "SCT"} and plain in ruled:
            targets, doubt = expected(ruled, plain, sex, age, default=default, best=best)
            reason = "rule not decidable" if doubt else "no target"
            wanted += [(number, target, None) for target in targets] or [(number, None, reason)]
        else:
            known = system in {SNOMED, "SCT"}
            reason = "no source code" if not plain else "code not in map" if known else "system not in map"
            wanted.append((number, None, reason))
    assert result.select("row", "to_code", "to_unmapped_reason").rows() == wanted


@given(ROWS, RULED)
@settings(max_examples=40, deadline=None)
def test_best_keeps_rows_and_order_and_is_the_first_of_all_where_it_is_decided(rows, ruled):
    context = PatientContext(sex="sex", age="age")
    best = CodeMapping(maps=("m",), prefix="to", context=context)
    every = best.model_copy(update={"cardinality": "all"})
    one, several = (map_codes(to_frame(rows), m, [build(ruled)]).collect() for m in (best, every))
    assert one["row"].to_list() == list(range(len(rows)))
    first = several.unique("row", keep="first", maintain_order=True)
    decided = (one["to_unmapped_reason"] != "rule not decidable").fill_null(value=True)
    assert one.filter(decided).equals(first.filter(decided))
    assert map_codes(to_frame(rows), best, [build(ruled)]).collect(engine="streaming").equals(one)


@given(ROWS, st.dictionaries(st.sampled_from(CODES), st.sampled_from(CODES), max_size=4))
@settings(max_examples=60, deadline=None)
def test_successors_never_change_what_has_a_target_and_end(rows, successors):
    concepts = pl.LazyFrame(
        [(SNOMED, "1", code, "d", False, None, new) for code, new in successors.items()],
        schema=CONCEPTS,
        orient="row",
    )
    code_map = build({"100001": [[("TRUE", "A00")]]})
    plain = CodeMapping(maps=("m",), prefix="to")
    replacing = plain.model_copy(update={"replace_retired": True})
    before = map_codes(to_frame(rows), plain, [code_map]).collect()
    after = map_codes(to_frame(rows), replacing, [code_map], content=MapContent(concepts=concepts)).collect()
    assert after.height == len(rows)
    for old, new in zip(before.iter_rows(named=True), after.iter_rows(named=True), strict=True):
        if old["to_code"] is not None:
            assert {name: new[name] for name in old} == old
            assert new["to_replaced"] is None
        elif new["to_code"] is not None:
            assert new["to_replaced"] == "100001"


PAIRS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from(list(Relationship)[:4])),
    min_size=1,
    max_size=10,
    unique_by=lambda pair: pair[:2],
)


def link(name, source, target, pairs):
    rows = [
        (name, "1", source, f"s{a}", target, f"s{b}", None, kind.value, 1, 1, None, None, order)
        for order, (a, b, kind) in enumerate(pairs)
    ]
    return MapTable(name, f"{name}|1", pl.DataFrame(rows, schema=MAPS, orient="row"))


@given(PAIRS, PAIRS, PAIRS)
@settings(max_examples=60, deadline=None)
def test_a_path_reaches_what_walking_reaches(first, second, third):
    maps = [link("a", "w", "x", first), link("b", "x", "y", second), link("c", "y", "z", third)]
    walked = {
        (f"s{a}", f"s{d}")
        for a, b, _ in first
        for b2, c, _ in second
        for c2, d, _ in third
        if b == b2 and c == c2
    }
    entries = compose_maps(maps).entries
    reached = entries.filter(pl.col("target_code").is_not_null()).select("source_code", "target_code").rows()
    assert set(reached) == walked
    assert len(reached) == len(walked)
    assert set(entries["source_code"]) == {f"s{a}" for a, _, _ in first}


@dataclass(frozen=True)
class Loaded:
    version: str
    digest: str


@dataclass(frozen=True)
class Source:
    """One code system, in versions."""

    versions: dict

    def release(self, system, version=None):
        return Loaded(version or max(self.versions), "")

    def tables(self, system, version=None):
        return self.versions[self.release(system, version).version]


def tree(edges, version):
    codes = sorted({end for edge in edges for end in edge} | {"0"})
    table = pl.DataFrame(
        [(c, p) for c, p in edges], schema={"child": pl.String, "parent": pl.String}, orient="row"
    )
    pairs = close_hierarchy(table, place="test").to_frame()
    own = [pl.lit("s").alias("system"), pl.lit(version).alias("version")]
    return {
        "concepts": pl.LazyFrame(
            [("s", version, c, c, True, None, None) for c in codes], CONCEPTS, orient="row"
        ),
        "edges": table.lazy().select(*own, "child", "parent").select(EDGES.names()),
        "closure": pairs.lazy().with_columns(own).select(CLOSURE.names()),
    }


EDGE_LISTS = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 8)).filter(lambda edge: edge[0] > edge[1]),
    min_size=1,
    unique=True,
).map(lambda edges: [(str(child), str(parent)) for child, parent in edges])


@given(EDGE_LISTS, EDGE_LISTS, st.sampled_from("0123456789"))
@settings(max_examples=40, deadline=None)
def test_is_a_equals_walking_and_a_pinned_version_never_changes(edges, others, root):
    def find(version, *, pinned, more):
        part = {"system": "s", "filter": [{"property": "concept", "op": "is-a", "value": root}]}
        if pinned:
            part["version"] = version
        data = {"resourceType": "ValueSet", "compose": {"include": [part]}}
        compose = parse_compose(data, name="t", place="t")
        source = Source({"1": tree([*edges, (root, "-")], "1")} | more)
        return set(expand(compose, source).collect()["code"])

    below, grown = {root}, True
    while grown:
        further = {child for child, parent in edges if parent in below} - below
        below, grown = below | further, bool(further)
    newer = {"2": tree([*others, (root, "-")], "2")}
    assert find("1", pinned=False, more={}) == below
    assert find("1", pinned=True, more=newer) == below

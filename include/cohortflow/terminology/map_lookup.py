"""The maps of a mapping, prepared for look-up: from a code to the rows that it may become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from cohortflow.terminology.concept_map import Relationship
from cohortflow.terminology.map_rules import RuleSet, is_conditional
from cohortflow.terminology.map_table import RANK, CodeMap, map_rows
from cohortflow.terminology.mapping import IDENTITY, CodeMapping, RuleOutcome, UnmappedReason
from cohortflow.terminology.pair_index import PairIndex, hash_pairs

__all__ = ["OUTPUT", "Lookup", "MapContent", "build_lookup", "normal_term"]

_SOURCE = ("source_system", "source_code")
_LONGEST_CHAIN = 16

OUTPUT = pl.Schema(
    dict.fromkeys(
        ("code", "system", "display", "relationship", "map", "unmapped_reason", "replaced", "rule"),
        pl.String(),
    )
)
"""What a source row gets; of ``replaced`` and ``rule`` what the mapping asks for."""


@dataclass(frozen=True)
class MapContent:
    """Tables of loaded terminologies that a mapping may need beside its maps.

    Attributes:
        concepts: Rows of `tables.CONCEPTS` with the successors of retired codes, for ``replace_retired``.
        synonyms: Rows of `tables.SYNONYMS`, for ``text``.
    """

    concepts: pl.LazyFrame | None = None
    synonyms: pl.LazyFrame | None = None


@dataclass(frozen=True)
class Lookup:
    """Where each code leads.

    Attributes:
        outputs: Rows of `OUTPUT`, each of them what a source row may become.
        pairs: One row for each known code: ``system``, ``code``, ``start`` and ``count`` of its rows in
            ``outputs``, best first; ``ruled`` where they depend on the context.
        index: Finds the place of a code in ``pairs``.
        candidates: For codes whose targets depend on rules: ``pair`` (place in ``pairs``), ``group``,
            ``rank`` (place in the group), ``rule`` (number in ``rules``), ``decided`` and ``default`` (places
            in ``outputs``, null for no target).
        rules: The rules of the candidates.
        reasons: Place in ``outputs`` of a row with each reason.
        identity: Place of the row for a code that is of the target system, and not in any map.
        terms: Terms of exactly one known concept, sorted: ``term`` and its place in ``outputs``.
        systems: Source and target systems of the maps.
        only_targets: Systems that are targets and never sources.
    """

    outputs: pl.DataFrame
    pairs: pl.DataFrame
    index: PairIndex
    candidates: pl.DataFrame
    rules: RuleSet
    reasons: dict[UnmappedReason, int]
    identity: int
    terms: pl.DataFrame
    systems: list[str]
    only_targets: list[str]

    def list_places(self, *, one: bool) -> pl.Series:
        """Return for each pair its place in ``outputs``, or the list of them; null where rules decide."""
        start, end = pl.col("start"), pl.col("start") + pl.col("count")
        places = start if one else pl.int_ranges(start, end, dtype=pl.UInt32)
        return self.pairs.select(pl.when(~pl.col("ruled")).then(places).alias("place"))["place"]


def normal_term(text: pl.Expr) -> pl.Expr:
    """Return a text without case, punctuation and repeated blanks; null where nothing is left."""
    plain = text.str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]+", " ").str.strip_chars()
    return pl.when(plain != "").then(plain)


def build_lookup(mapping: CodeMapping, code_maps: Sequence[CodeMap], content: MapContent) -> Lookup:
    """Prepare maps for look-up.

    Args:
        mapping: What is asked for.
        code_maps: Its maps, in their order.
        content: Tables beside them; those that the mapping needs.
    """
    entries = pl.concat(
        map_rows(code_map).with_columns(
            pl.lit(code_map.label).alias("map"), pl.lit(position, pl.UInt32).alias("position")
        )
        for position, code_map in enumerate(code_maps)
    ).with_columns(pl.lit(None, pl.String).alias("replaced"))
    sources = entries["source_system"].unique().sort().to_list()
    targets = entries["target_system"].drop_nulls().unique().sort().to_list()
    own = _own_targets(entries)
    if mapping.replace_retired and content.concepts is not None:
        successors = _find_successors(content.concepts, {*sources, *targets})
        entries, own = _replace_retired(entries, own, successors, set(targets))
    chosen = _choose_entries(entries)
    outputs = [_write_outputs(chosen)]
    own = own.join(chosen, left_on=["system", "code"], right_on=_SOURCE, how="anti")
    outputs.append(
        own.select(
            pl.coalesce("replaced", "code").alias("code"),
            "system",
            "display",
            pl.lit(Relationship.EQUIVALENT.value).alias("relationship"),
            pl.lit(IDENTITY).alias("map"),
            "replaced",
        )
    )
    ruled = chosen.filter("ruled")
    outputs.append(_write_outputs(ruled, rule=RuleOutcome.DECIDED))
    outputs.append(_write_outputs(ruled, rule=RuleOutcome.DEFAULT))
    fixed = pl.DataFrame(
        {
            "unmapped_reason": [*(reason.value for reason in UnmappedReason), None],
            "relationship": [None] * len(UnmappedReason) + [Relationship.EQUIVALENT.value],
            "map": [None] * len(UnmappedReason) + [IDENTITY],
        },
        schema=dict.fromkeys(("unmapped_reason", "relationship", "map"), pl.String()),
    )
    first_fixed = sum(part.height for part in outputs)
    table = pl.concat([pl.DataFrame(schema=OUTPUT), *outputs, fixed], how="diagonal").select(OUTPUT.names())
    pairs = _index_pairs(chosen, own)
    distinct = ruled["rule"].drop_nulls().unique(maintain_order=True).to_list() if ruled.height else []
    terms = pl.DataFrame(schema={"term": pl.String(), "place": pl.UInt32()})
    if mapping.text is not None and content.synonyms is not None:
        terms, more = _index_terms(content.synonyms, pairs, table, targets)
        table = pl.concat([table, more])
    return Lookup(
        outputs=table,
        pairs=pairs,
        index=PairIndex.build(pairs),
        candidates=_index_candidates(ruled, pairs, distinct, chosen.height + own.height),
        rules=RuleSet(distinct),
        reasons={reason: first_fixed + index for index, reason in enumerate(UnmappedReason)},
        identity=first_fixed + len(UnmappedReason),
        terms=terms,
        systems=[*sources, *targets],
        only_targets=[system for system in targets if system not in sources],
    )


def _own_targets(entries: pl.DataFrame) -> pl.DataFrame:
    """Return the targets of the maps as codes that a source may carry itself."""
    return (
        entries.filter(pl.col("target_code").is_not_null())
        .select(
            pl.col("target_system").alias("system"),
            pl.col("target_code").alias("code"),
            pl.col("target_display").alias("display"),
            "replaced",
        )
        .unique(["system", "code"], keep="first", maintain_order=True)
    )


def _find_successors(concepts: pl.LazyFrame, systems: set[str]) -> pl.DataFrame:
    """Return ``system``, ``code`` and ``replaced``: the last successor of each retired code."""
    steps = (
        concepts.filter(pl.col("system").is_in(sorted(systems)), pl.col("replaced_by").is_not_null())
        .select("system", "code", pl.col("replaced_by").alias("replaced"))
        .filter(pl.col("code") != pl.col("replaced"))
        .unique(["system", "code"], keep="first", maintain_order=True)
        .collect()
    )
    # A successor may be retired too. Codes that replace each other in a ring stop somewhere on it.
    found = steps
    for _ in range(_LONGEST_CHAIN):
        further = steps.rename({"code": "replaced", "replaced": "next"})
        found = found.join(further, on=["system", "replaced"], how="left")
        if found["next"].null_count() == found.height:
            return found.drop("next")
        found = found.with_columns(pl.coalesce("next", "replaced").alias("replaced")).drop("next")
    return found.filter(pl.col("code") != pl.col("replaced"))


def _replace_retired(
    entries: pl.DataFrame, own: pl.DataFrame, successors: pl.DataFrame, targets: set[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Give retired codes without a target the entries of their successors."""
    mapped = entries.filter(pl.col("target_code").is_not_null())
    retired = successors.rename({"system": "source_system", "code": "source_code"}).join(
        mapped, on=_SOURCE, how="anti"
    )
    added = (
        retired.rename({"source_code": "retired"})
        .join(
            mapped.drop("replaced").rename({"source_code": "replaced_code"}),
            left_on=["source_system", "replaced"],
            right_on=["source_system", "replaced_code"],
        )
        .rename({"retired": "source_code"})
        .select(entries.columns)
    )
    kept = entries.join(added, on=_SOURCE, how="anti")
    known = own.select("system", pl.col("code").alias("replaced"), "display")
    renamed = (
        retired.rename({"source_system": "system", "source_code": "code"})
        .filter(pl.col("system").is_in(sorted(targets)))
        .join(known, on=["system", "replaced"], how="left")
        .select(own.columns)
    )
    # The target system's own retired code becomes its successor, even where a map still leads to it.
    own = pl.concat([renamed, own]).unique(["system", "code"], keep="first", maintain_order=True)
    return pl.concat([kept, added]), own


def _choose_entries(entries: pl.DataFrame) -> pl.DataFrame:
    """Return the entries of the first map that has a target for a code, best first.

    Where no map has one, what is left is a single entry without target. In a group with rules the entries
    are alternatives: without conditions the first one is taken; with conditions the code is ``ruled``, and
    all of them are left, in the order in which they are tried.
    """
    # Sorted, a code is a run of rows: numbers of runs group faster than texts.
    ordered = _sort_by_source(entries)
    starts = _source_changes()
    first = pl.col("position").filter(pl.col("target_code").is_not_null()).min().over("run")
    found = (
        ordered.with_columns(
            (starts | (pl.int_range(pl.len()) == 0)).cum_sum().alias("run"),
            pl.col("relationship").replace_strict(RANK, return_dtype=pl.UInt8).alias("rank"),
        )
        .with_columns(first.alias("first"))
        .filter(
            pl.when(pl.col("first").is_not_null())
            .then(pl.col("position") == pl.col("first"))
            .otherwise(pl.int_range(pl.len()).over("run") == 0)
        )
    )
    if found["rule"].null_count() == found.height:
        # Most maps have no rules, and what they would be asked for takes a while.
        return (
            found.filter(pl.col("target_code").is_not_null() | pl.col("first").is_null())
            .sort("run", "rank", "group", "priority", "order")
            .with_columns(pl.lit(value=False).alias("ruled"), pl.lit(0).alias("step"))
        )
    has_rule = pl.col("rule").is_not_null()
    found = found.with_columns(
        is_conditional(pl.col("rule")).any().over("run").alias("ruled"),
        has_rule.any().over("run", "group").alias("alternatives"),
        has_rule.any().over("run").alias("grouped"),
    ).filter(pl.col("ruled") | pl.col("target_code").is_not_null() | pl.col("first").is_null())
    return (
        found.sort(
            "run",
            # The groups of a map with rules give a first, a second, ... target code.
            pl.when("grouped").then("group").otherwise(0),
            pl.when("alternatives").then("priority").otherwise(0),
            "rank",
            "group",
            "priority",
            "order",
        )
        .with_columns(pl.int_range(pl.len()).over("run", "group").alias("step"))
        .filter(pl.col("ruled") | ~pl.col("alternatives") | (pl.col("step") == 0))
    )


def _sort_by_source(entries: pl.DataFrame) -> pl.DataFrame:
    """Return the entries of each source side by side, in their order."""
    hashed = entries.with_columns(hash_pairs(entries, columns=_SOURCE)).sort("hash", maintain_order=True)
    collides = _source_changes() & (pl.col("hash") == pl.col("hash").shift())
    if hashed.select(collides.any()).item():
        return entries.sort(_SOURCE, maintain_order=True)
    return hashed.drop("hash")  # in a third of the time that sorting texts takes


def _source_changes() -> pl.Expr:
    """Return whether a row has another source than the row above it."""
    return pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in _SOURCE)


def _write_outputs(entries: pl.DataFrame, *, rule: RuleOutcome | None = None) -> pl.DataFrame:
    """Return rows of `OUTPUT` for entries; one without target says so."""
    columns = {
        "code": "target_code",
        "system": "target_system",
        "display": "target_display",
        "relationship": "relationship",
        "map": "map",
        "replaced": "replaced",
    }
    none = pl.col("target_code").is_null()
    reason = pl.when(none).then(pl.lit(UnmappedReason.NO_TARGET.value))
    return entries.select(
        *(pl.when(~none).then(pl.col(source)).alias(name) for name, source in columns.items()),
        reason.alias("unmapped_reason"),
        pl.lit(rule.value if rule else None, pl.String).alias("rule"),
    )


def _index_pairs(chosen: pl.DataFrame, own: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs of the maps, whose entries stand in runs, and after them the targets' own codes."""
    mapped = (
        chosen.with_row_index("place")
        .group_by("run", maintain_order=True)
        .agg(
            pl.col("source_system").first().alias("system"),
            pl.col("source_code").first().alias("code"),
            pl.col("place").first().alias("start"),
            pl.len().alias("count"),
            pl.col("ruled").first(),
        )
        .drop("run")
    )
    others = own.with_row_index("start", chosen.height).select(
        "system", "code", "start", pl.lit(1, pl.UInt32).alias("count"), pl.lit(value=False).alias("ruled")
    )
    return pl.concat([mapped, others])


def _index_candidates(
    ruled: pl.DataFrame, pairs: pl.DataFrame, rules: list[str], decided: int
) -> pl.DataFrame:
    numbers = pl.DataFrame({"rule": rules}, schema={"rule": pl.String()}).with_row_index("number")
    known = pairs.select("system", "code").with_row_index("pair")
    has_target = pl.col("target_code").is_not_null()
    place = pl.col("place")
    return (
        ruled.with_row_index("place")
        .join(known, left_on=_SOURCE, right_on=["system", "code"], maintain_order="left")
        .join(numbers, on="rule", how="left", maintain_order="left")
        .select(
            "pair",
            "group",
            pl.col("step").cast(pl.UInt32),
            pl.col("number").alias("rule"),
            pl.when(has_target).then(place + decided).cast(pl.UInt32).alias("decided"),
            pl.when(has_target).then(place + decided + ruled.height).cast(pl.UInt32).alias("default"),
        )
    )


def _index_terms(
    synonyms: pl.LazyFrame, pairs: pl.DataFrame, outputs: pl.DataFrame, targets: list[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the terms of exactly one concept, and the further outputs that they lead to."""
    terms = (
        synonyms.filter(pl.col("kind") != "definition")
        .select("system", "version", "code", "term", normal_term(pl.col("term")).alias("normal"), "kind")
        .filter(pl.col("normal").is_not_null())
        .filter(pl.struct("system", "code").n_unique().over("normal") == 1)
        .sort("normal", "kind", "term")
        .unique("normal", keep="first", maintain_order=True)
        .collect()
        .join(pairs.select("system", "code", "start", "ruled"), on=["system", "code"], how="left")
        # What a rule decides needs the code; a text does not make up for the context.
        .filter(~pl.col("ruled").fill_null(value=False))
        .filter(pl.col("start").is_not_null() | pl.col("system").is_in(targets))
        .sort("normal")
    )
    origin = pl.concat_str(pl.lit("term of "), "system", pl.lit("|"), "version")
    start = terms["start"]
    by_map = outputs[start.fill_null(0)]
    mapped = start.is_not_null() & by_map["unmapped_reason"].is_null()
    label = (
        pl.when(pl.col("map") == IDENTITY).then(origin).otherwise(pl.concat_str(origin, pl.lit(" > "), "map"))
    )
    own = terms["system"].is_in(targets) & start.is_null()
    rows = pl.concat(
        [
            by_map.rename({"code": "target", "system": "target_system"}),
            terms.select("system", "version", "code", "term"),
            pl.DataFrame({"by_map": mapped, "own": own}),
        ],
        how="horizontal",
    )
    rows = rows.select(
        "by_map",
        "own",
        pl.when("by_map").then("target").otherwise("code").alias("code"),
        pl.when("by_map").then("target_system").otherwise("system").alias("system"),
        pl.when("by_map").then("display").otherwise("term").alias("display"),
        pl.when("by_map")
        .then("relationship")
        .otherwise(pl.lit(Relationship.EQUIVALENT.value))
        .alias("relationship"),
        pl.when("by_map").then(label).otherwise(origin).alias("map"),
        pl.lit(None, pl.String).alias("unmapped_reason"),
        pl.when("by_map").then("replaced").alias("replaced"),
        pl.lit(None, pl.String).alias("rule"),
    )
    useful = mapped | own
    found = terms.filter(useful).select(pl.col("normal").alias("term"))
    place = pl.int_range(outputs.height, outputs.height + found.height, dtype=pl.UInt32, eager=True)
    return found.with_columns(place.alias("place")), rows.filter(useful).select(OUTPUT.names())

"""The mapping of codes: every source row stays.

Every step goes row by row, so that a frame of any size streams through in its order. A code that stands in a
map as it is, is looked up by its spelling. What is left - other spellings, unknown codes, codes whose target
depends on the patient - is worked out once for each distinct value.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import polars as pl

from cohortflow.errors import StudyError
from cohortflow.terminology.map_lookup import OUTPUT, Lookup, MapContent, build_lookup, normal_term
from cohortflow.terminology.map_table import CodeMap
from cohortflow.terminology.mapping import CodeMapping, UnmappedReason, mapped_columns
from cohortflow.terminology.normalize import spell, well_formed_expr

__all__ = ["map_codes"]

_PLACE = "__place"
_OWN = ("system", "code")
"""What a row that is of the target system, and in no map, keeps as its target."""
_TRUE, _UNKNOWN = 1, 2
_MOST_KNOWN = 100_000
"""Distinct values whose result is kept from batch to batch."""


def map_codes(
    frame: pl.LazyFrame,
    mapping: CodeMapping,
    concept_maps: Sequence[CodeMap],
    *,
    content: MapContent | None = None,
) -> pl.LazyFrame:
    """Add the target of each row's code.

    With ``cardinality: best`` the result has exactly the rows of ``frame``, in their order. With ``all`` a
    row stands once for each target, and once where there is none. A code that is in the target system already
    is its own target. In a map within one system (RxNorm product to ingredient) only its targets are; an
    unmapped product is not taken for an ingredient.

    Targets are ordered by relationship, closest first, then by group, priority and place in the map. In a map
    with rules each group gives one target, by its first rule that holds.

    Args:
        frame: A view with the columns ``mapping.source_columns``.
        mapping: Which columns, and how.
        concept_maps: The maps that ``mapping.maps`` names, in that order.
        content: Tables of loaded terminologies; needed for ``replace_retired`` and ``text``.

    Returns:
        The columns of ``frame`` and those of ``mapped_columns(mapping)``.

    Raises:
        StudyError: A source column is missing, an added column is there already, the maps are not those that
            the mapping names, or a table that it needs is not given.
    """
    content = content or MapContent()
    _check(frame, mapping, concept_maps, content)
    lookup = build_lookup(mapping, concept_maps, content)
    source = {"system": mapping.system, "code": mapping.code}
    values = [pl.col(column).cast(pl.String).alias(name) for name, column in source.items()]
    if lookup.candidates.height:
        values.append(lookup.rules.context_key(mapping.context).alias("context"))
    resolver = _Resolver(lookup, mapping)
    mapped = frame.with_columns(
        pl.struct(values)
        .map_batches(resolver.find_places, return_dtype=resolver.dtype, is_elementwise=True)
        .alias(_PLACE)
    )
    if mapping.cardinality == "all":
        mapped = mapped.explode(_PLACE)
    if mapping.text is not None:
        mapped = mapped.with_columns(_text_place(lookup, mapping.text).alias(_PLACE))
    names = {column.name for column in mapped_columns(mapping)}
    added = [
        pl.struct(pl.col(_PLACE).alias("place"), *(values if part in _OWN else ()))
        .map_batches(partial(resolver.write, part=part), return_dtype=pl.String(), is_elementwise=True)
        .alias(mapping.output(part))
        for part in OUTPUT.names()
        if mapping.output(part) in names
    ]
    return mapped.select(*frame.collect_schema().names(), *added)


def _check(
    frame: pl.LazyFrame, mapping: CodeMapping, concept_maps: Sequence[CodeMap], content: MapContent
) -> None:
    names = frame.collect_schema().names()
    for role, column in mapping.source_columns.items():
        if column not in names:
            raise StudyError(
                f"The mapping '{mapping.prefix}' reads its {role} from a missing column '{column}'.",
                remedy=f"Use one of: {', '.join(names)}.",
            )
    taken = [column.name for column in mapped_columns(mapping) if column.name in names]
    if taken:
        raise StudyError(
            f"The mapping '{mapping.prefix}' would replace the columns {', '.join(taken)}.",
            remedy="Choose another prefix.",
        )
    given = tuple(concept_map.name for concept_map in concept_maps)
    if given != mapping.maps:
        raise StudyError(
            f"The mapping '{mapping.prefix}' names the maps {', '.join(mapping.maps)}; "
            f"given: {', '.join(given) or 'none'}.",
            remedy="Pass the maps that it names, in that order.",
        )
    for setting, wanted, table, held in (
        ("replace_retired", mapping.replace_retired, "concepts", content.concepts),
        ("text", mapping.text is not None, "synonyms", content.synonyms),
    ):
        if wanted and held is None:
            raise StudyError(
                f"The mapping '{mapping.prefix}' has '{setting}', which needs the {table} of a terminology.",
                remedy="Load the code systems with 'cohortflow terminology load'.",
            )


class _Resolver:
    """Tells where codes lead; values that stand in no map as they are, are worked out once each.

    A map that many threads call: what one of them has worked out, another may work out again, and both find
    the same.
    """

    def __init__(self, lookup: Lookup, mapping: CodeMapping) -> None:
        self._lookup, self._mapping = lookup, mapping
        self._places = lookup.list_places(one=mapping.cardinality == "best")
        self.dtype = self._places.dtype
        # Values, and at the same places where they lead; replaced together.
        self._known: tuple[pl.DataFrame, pl.DataFrame] | None = None

    def find_places(self, batch: pl.Series) -> pl.Series:
        """Return where each row of a batch leads in the outputs: a place, or a list of them."""
        values = batch.struct.unnest()
        places = self._places[self._lookup.index.find(values)]
        left = places.is_null()
        if not left.any():
            return places
        rows = left.arg_true()
        numbers, results = self._look_up(values[rows])
        number = pl.repeat(None, len(batch), dtype=pl.UInt32(), eager=True).scatter(rows, numbers)
        return results["place"][number].zip_with(left, places)

    def write(self, batch: pl.Series, *, part: str) -> pl.Series:
        """Return a column of the outputs for a batch: ``place``, and the values where a row may keep them."""
        values = batch.struct.unnest()
        column = self._lookup.outputs[part][values["place"]]
        if part not in _OWN:
            return column
        keeps = values["place"] == self._lookup.identity
        if not keeps.any():
            return column
        rows = keeps.arg_true()
        numbers, results = self._look_up(values.drop("place")[rows])
        return column.scatter(rows, results[part][numbers])

    def _look_up(self, left: pl.DataFrame) -> tuple[pl.Series, pl.DataFrame]:
        """Return the number of each row's result, and the results."""
        if self._known is None:
            schema = {"place": self.dtype} | dict.fromkeys(_OWN, pl.String())
            values, results = left.clear(), pl.DataFrame(schema=schema)
        else:
            values, results = self._known
        distinct = left.unique()
        new = distinct.join(values, on=left.columns, how="anti", nulls_equal=True)
        if new.height:
            values = pl.concat([values, new])
            results = pl.concat([results, _resolve(new, self._lookup, self._mapping)])
            if results.height <= _MOST_KNOWN:
                self._known = values, results
        numbered = values.with_row_index("number")
        numbers = left.join(numbered, on=left.columns, how="left", nulls_equal=True, maintain_order="left")
        return numbers["number"], results


def _resolve(values: pl.DataFrame, lookup: Lookup, mapping: CodeMapping) -> pl.DataFrame:
    one = mapping.cardinality == "best"
    spelled = spell(values).with_row_index("row")
    spelled = spelled.with_columns(lookup.index.find(spelled))
    system, code = pl.col("system"), pl.col("code")
    spelled = spelled.hstack(lookup.pairs.select("start", "count", "ruled")[spelled["pair"]])
    hit = pl.col("pair").is_not_null()
    reason = (
        pl.when(code.is_null())
        .then(lookup.reasons[UnmappedReason.NO_SOURCE_CODE])
        # The syntax check keeps a hospital's text out of a column that is declared to hold codes.
        .when(system.is_in(lookup.only_targets) & well_formed_expr(system, code))
        .then(lookup.identity)
        .when(system.is_in(lookup.systems))
        .then(lookup.reasons[UnmappedReason.CODE_NOT_IN_MAP])
        .otherwise(lookup.reasons[UnmappedReason.SYSTEM_NOT_IN_MAP])
        .cast(pl.UInt32)
    )
    ruled = _apply_rules(spelled.filter("ruled"), lookup, mapping)
    spelled = spelled.join(ruled, on="row", how="left", maintain_order="left")
    single = pl.when(hit).then("start").otherwise(reason)
    if one:
        place = pl.coalesce(pl.col("places").list.first(), single)
    else:
        ranges = pl.int_ranges(pl.col("start"), pl.col("start") + pl.col("count"), dtype=pl.UInt32)
        several = pl.when(hit).then(ranges).otherwise(pl.concat_list(reason))
        place = pl.coalesce("places", several)
    identical = ~hit & (reason == lookup.identity)
    own = [pl.when(identical).then(pl.col(name)).alias(name) for name in _OWN]
    return spelled.select(place.alias("place"), *own)


def _apply_rules(values: pl.DataFrame, lookup: Lookup, mapping: CodeMapping) -> pl.DataFrame:
    """Return ``row`` and ``places``: the targets that the rules choose, or the reason why there is none."""
    schema = {"row": pl.UInt32(), "places": pl.List(pl.UInt32())}
    if values.is_empty():
        return pl.DataFrame(schema=schema)
    contexts = values["context"].unique(maintain_order=True)
    verdicts = lookup.rules.evaluate(contexts.to_list())
    numbers = pl.DataFrame({"context": contexts}).with_row_index("number")
    numbered = values.join(numbers, on="context", maintain_order="left")
    tried = numbered.select("row", "pair", "number").join(lookup.candidates, on="pair")
    rule = tried["rule"].fill_null(0).to_numpy()
    verdict = pl.Series("verdict", verdicts[tried["number"].to_numpy(), rule])
    tried = tried.with_columns(
        pl.when(pl.col("rule").is_null()).then(_TRUE).otherwise(verdict).alias("verdict")
    ).sort("row", "group", "step")
    holds, unknown = pl.col("verdict") == _TRUE, pl.col("verdict") == _UNKNOWN
    taken = holds.arg_max()
    groups = (
        tried.group_by("row", "group", maintain_order=True)
        .agg(
            holds.any().alias("any"),
            # Only what was tried before the chosen one makes the choice doubtful.
            (unknown & (holds.cum_sum() == 0)).any().alias("undecided"),
            pl.col("decided").get(taken),
            pl.col("default").get(taken),
        )
        .with_columns(
            pl.when(~pl.col("any"))
            .then(None)
            .when(~pl.col("undecided"))
            .then("decided")
            .when(pl.lit(mapping.undecided == "default"))
            .then("default")
            .alias("place")
        )
    )
    none = (
        pl.when(pl.col("undecided").any())
        .then(pl.lit(lookup.reasons[UnmappedReason.RULE_NOT_DECIDABLE], pl.UInt32))
        .otherwise(pl.lit(lookup.reasons[UnmappedReason.NO_TARGET], pl.UInt32))
    )
    places = pl.col("place")
    if mapping.cardinality == "best":
        # A later group is no stand-in: what the first one would give is what is not known.
        unknown_before = (pl.col("place").is_null() & pl.col("undecided")).cum_sum() > 0
        places = places.filter(~unknown_before)
    return (
        groups.group_by("row")
        .agg(places.drop_nulls().cast(pl.UInt32).alias("places"), none.alias("none"))
        .select(
            pl.col("row").cast(pl.UInt32),
            pl.when(pl.col("places").list.len() > 0)
            .then("places")
            .otherwise(pl.concat_list("none"))
            .alias("places"),
        )
    )


def _text_place(lookup: Lookup, text: str) -> pl.Expr:
    """Return where a row leads whose code led nowhere: to the concept whose term its text is."""
    unmapped = pl.col(_PLACE).is_in(list(lookup.reasons.values()))
    wanted = pl.when(unmapped).then(pl.col(text).cast(pl.String))
    return pl.coalesce(
        wanted.map_batches(
            partial(_find_terms, terms=lookup.terms), return_dtype=pl.UInt32(), is_elementwise=True
        ),
        _PLACE,
    )


def _find_terms(batch: pl.Series, *, terms: pl.DataFrame) -> pl.Series:
    texts = batch.alias("text").to_frame()
    distinct = texts.unique().with_columns(normal_term(pl.col("text")).alias("term"))
    places = distinct.join(terms, on="term", how="left").select("text", "place")
    return texts.join(places, on="text", how="left", maintain_order="left")["place"]

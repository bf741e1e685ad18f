"""The expansion of value sets: from a compose to a table of codes, by joins over loaded terminologies."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import polars as pl

from cohortflow.errors import ConfigurationError, InputError
from cohortflow.terminology.code_patterns import code_list_pattern
from cohortflow.terminology.compose import ECL_PROPERTIES, Compose, ComposeFilter, ComposePart
from cohortflow.terminology.ecl import parse_ecl
from cohortflow.terminology.ecl_evaluate import evaluate_ecl, need_table
from cohortflow.terminology.systems import LOINC, SNOMED_CT, canonical_code
from cohortflow.terminology.value_set import ValueSet, ValueSetPart

__all__ = [
    "EXPANSION",
    "ExpansionCache",
    "ReleaseLike",
    "TerminologySource",
    "expand",
    "expansion_key",
    "to_value_set",
]

EXPANSION = pl.Schema(dict.fromkeys(("system", "version", "code", "display"), pl.String()))
"""One row per member, sorted. ``version`` is null where a set lists codes of a system that is not loaded."""
_CODES = pl.Schema({"code": pl.String()})
_CODE_PROPERTIES = frozenset({"concept", "code"})
_LOINC_PARTS: Mapping[str, str] = {
    "time_aspct": "time_aspect",
    "scale_typ": "scale",
    "method_typ": "method",
}
"""LOINC's names of its parts, as FHIR's filters write them, to those of the tables."""


class ReleaseLike(Protocol):
    """What is known of a loaded version."""

    @property
    def version(self) -> str:
        """The distributor's name of the version."""

    @property
    def digest(self) -> str:
        """Of the content."""


class TerminologySource(Protocol):
    """Where the tables are, such as a store of the lake."""

    def release(self, system: str, version: str | None = None) -> ReleaseLike:
        """Return a version, the newest where none is named; raises ``InputError`` where there is none."""

    def tables(self, system: str, version: str | None = None) -> Mapping[str, pl.LazyFrame]:
        """Return its tables."""


class ExpansionCache(Protocol):
    """Keeps expansions by key."""

    def get(self, key: str) -> pl.DataFrame | None:
        """Return an expansion, or ``None``."""

    def put(self, key: str, expansion: pl.DataFrame) -> None:
        """Keep one."""


def expand(
    compose: Compose, source: TerminologySource, *, cache: ExpansionCache | None = None
) -> pl.LazyFrame:
    """List the members of a value set.

    A code that the set lists is a member, whether the loaded version knows it or not; filters choose among
    the active concepts of the version, or among all of them with ``inactive``.

    Args:
        compose: The value set.
        source: Loaded terminologies.
        cache: Keeps the result under the digests of the compose and of the versions that it rests on.

    Returns:
        Rows of `EXPANSION`.

    Raises:
        ConfigurationError: A system, a version or a table that the set needs is not loaded. Says how to.
        InputError: A filter names what the system does not have.
    """
    if cache is None:
        return _Expander(source).expand(compose)
    key = expansion_key(compose, source)
    found = cache.get(key)
    if found is None:
        found = _Expander(source).expand(compose).collect()
        cache.put(key, found)
    return found.lazy()


def expansion_key(compose: Compose, source: TerminologySource) -> str:
    """Return the key of an expansion: equal composes and equal content of the releases give equal keys."""
    expander = _Expander(source)
    facts = [compose.digest]
    facts.extend(
        f"{part.system} {part.version} {expander.release(part).digest}"
        for part in _all_parts(compose)
        if part.system is not None and (part.concepts is None or expander.is_loaded(part))
    )
    facts.extend(f"{url} {expander.published(url).digest}" for url in _outside_sets(compose))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def to_value_set(compose: Compose, expansion: pl.DataFrame) -> ValueSet:
    """Return an expansion as a set that tests columns for membership."""
    parts = tuple(
        ValueSetPart(system=str(system), codes=frozenset(rows["code"]))
        for (system,), rows in expansion.group_by("system", maintain_order=True)
    )
    # A set without members still answers: no code is in it.
    return ValueSet(
        compose.name,
        compose.url,
        compose.version,
        compose.title,
        parts or (ValueSetPart(system="", codes=frozenset()),),
    )


@dataclass(frozen=True)
class _Expander:
    source: TerminologySource

    def expand(self, compose: Compose) -> pl.LazyFrame:
        members = pl.concat(
            [pl.LazyFrame(schema=EXPANSION), *(self._part(p, compose) for p in compose.include)]
        )
        for part in compose.exclude:
            members = members.join(self._part(part, compose), on=["system", "code"], how="anti")
        return (
            members.sort("system", "code", "version", "display", nulls_last=True)
            .unique(["system", "code"], keep="first", maintain_order=True)
            .select(EXPANSION.names())
        )

    def is_loaded(self, part: ComposePart) -> bool:
        try:
            self.source.release(part.system or "", part.version)
        except InputError:
            return False
        return True

    def release(self, part: ComposePart) -> ReleaseLike:
        return self._need(part.system or "", part.version, "")

    def published(self, url: str) -> ReleaseLike:
        """Return the release of a value set that is loaded by itself."""
        canonical, _, version = url.partition("|")
        return self._need(canonical, version or None, "the value set ")

    def _need(self, system: str, version: str | None, kind: str) -> ReleaseLike:
        try:
            return self.source.release(system, version)
        except InputError as error:
            named = f"{system} version {version}" if version else system
            raise ConfigurationError(
                f"A value set needs {kind}{named}, which is not loaded.",
                remedy="Load it with 'cohortflow terminology load FORMAT PATH'."
                + (f" {error.remedy}" if version else ""),
            ) from None

    def _part(self, part: ComposePart, compose: Compose) -> pl.LazyFrame:
        conditions = [self._referred(url, compose) for url in part.value_sets]
        if part.system is not None:
            conditions.insert(0, self._own(part, part.system, inactive=compose.inactive))
        return reduce(
            lambda members, other: members.join(other, on=["system", "code"], how="semi"), conditions
        )

    def _referred(self, url: str, compose: Compose) -> pl.LazyFrame:
        if url in compose.sets:
            return self.expand(compose.sets[url])
        release = self.published(url)
        tables = self.source.tables(url.partition("|")[0], release.version)
        rows = need_table(tables, "members", url)
        return rows.select(
            "system",
            pl.lit(None, pl.String).alias("version"),
            "code",
            pl.lit(None, pl.String).alias("display"),
        )

    def _own(self, part: ComposePart, system: str, *, inactive: bool) -> pl.LazyFrame:
        """Return the members that a part takes from its code system."""
        if part.concepts is not None:
            listed = pl.LazyFrame(
                [(system, c.code, c.display) for c in part.concepts],
                schema=dict.fromkeys(("system", "code", "given"), pl.String()),
                orient="row",
            )
            if not self.is_loaded(part):
                return listed.select(
                    "system",
                    pl.lit(part.version, pl.String).alias("version"),
                    "code",
                    pl.col("given").alias("display"),
                )
            release = self.release(part)
            concepts = need_table(self.source.tables(system, release.version), "concepts", system)
            return listed.join(concepts.select("code", "version", "display"), on="code", how="left").select(
                "system",
                pl.col("version").fill_null(release.version),
                "code",
                pl.coalesce("given", "display").alias("display"),
            )
        release = self.release(part)
        tables = self.source.tables(system, release.version)
        label = f"{system} version {release.version}"
        concepts = need_table(tables, "concepts", label)
        chosen = concepts if inactive else concepts.filter("active")
        for rule in part.filters:
            found = _Filters(tables, system, label).codes(rule)
            chosen = chosen.join(found, on="code", how="semi")
        return chosen.select(EXPANSION.names())


@dataclass(frozen=True)
class _Filters:
    """The filters of one release, each as the codes that pass it."""

    tables: Mapping[str, pl.LazyFrame]
    system: str
    release: str

    def codes(self, rule: ComposeFilter) -> pl.LazyFrame:
        if rule.property in ECL_PROPERTIES and self.system == SNOMED_CT.uri:
            return evaluate_ecl(parse_ecl(rule.value), self.tables, release=self.release)
        if rule.property in _CODE_PROPERTIES:
            return self._by_code(rule)
        column = {"display": "display", "inactive": "active", "active": "active"}.get(rule.property)
        if column is not None:
            return self._by_column(rule, column)
        if rule.property in {"parent", "child", "ancestor", "descendant"} and rule.op == "=":
            return self._by_relative(rule)
        return self._by_attribute(rule)

    def _table(self, name: str) -> pl.LazyFrame:
        return need_table(self.tables, name, self.release)

    @property
    def _all(self) -> pl.LazyFrame:
        return self._table("concepts").select("code")

    def _relatives(self, code: str, *, down: bool, direct: bool = False) -> pl.LazyFrame:
        if direct:
            pairs = self._table("edges").select(lower="child", upper="parent")
        else:
            pairs = self._table("closure").select(lower="descendant", upper="ancestor")
        start, end = ("upper", "lower") if down else ("lower", "upper")
        return pairs.filter(pl.col(start) == code).select(pl.col(end).alias("code"))

    def _by_code(self, rule: ComposeFilter) -> pl.LazyFrame:  # noqa: PLR0911 - one for each operator
        code = canonical_code(self.system, rule.value)
        own = pl.LazyFrame({"code": [code]}, schema=_CODES)
        match rule.op:
            case "=":
                return own
            case "is-a":
                self._check_code(code)
                return pl.concat([self._relatives(code, down=True), own])
            case "is-not-a":
                self._check_code(code)
                below = pl.concat([self._relatives(code, down=True), own])
                return self._all.join(below, on="code", how="anti")
            case "descendent-of":
                self._check_code(code)
                return self._relatives(code, down=True)
            case "generalizes":
                self._check_code(code)
                return pl.concat([self._relatives(code, down=False), own])
            case "child-of":
                self._check_code(code)
                return self._relatives(code, down=True, direct=True)
            case "descendent-leaf":
                self._check_code(code)
                inner = self._table("edges").select(code="parent")
                return self._relatives(code, down=True).join(inner, on="code", how="anti")
            case "exists":
                return self._all if rule.value == "true" else self._all.clear()
        return self._all.filter(_matches(pl.col("code"), rule, self.system))

    def _check_code(self, code: str) -> None:
        """Refuse a code that is not there: a mistyped one would silently choose nothing."""
        if self._all.filter(pl.col("code") == code).collect().is_empty():
            raise InputError(
                f"A filter names the code '{code}', which {self.release} does not have.",
                remedy="Mend the code, or pin the version of the code system that has it.",
            )

    def _by_column(self, rule: ComposeFilter, column: str) -> pl.LazyFrame:
        value = pl.col(column)
        if column == "active":
            value = value if rule.property == "active" else ~value
            value = pl.when(value).then(pl.lit("true")).otherwise(pl.lit("false"))
        return self._table("concepts").filter(_matches(value, rule, "")).select("code")

    def _by_relative(self, rule: ComposeFilter) -> pl.LazyFrame:
        code = canonical_code(self.system, rule.value)
        self._check_code(code)
        return self._relatives(
            code, down=rule.property in {"parent", "ancestor"}, direct=rule.property in {"parent", "child"}
        )

    def _by_attribute(self, rule: ComposeFilter) -> pl.LazyFrame:
        attributes = self._table("attributes")
        wanted = rule.property.lower()
        if self.system == LOINC.uri:
            wanted = _LOINC_PARTS.get(wanted, wanted)
        rows = attributes.filter(pl.col("attribute").str.to_lowercase() == wanted)
        if rows.head(1).collect().is_empty():
            known = attributes.select(pl.col("attribute").unique().sort().head(20)).collect()["attribute"]
            raise InputError(
                f"{self.release} has no property '{rule.property}'.",
                remedy=f"Use 'concept', 'code', 'display', 'inactive', or one of: {', '.join(known)}.",
            )
        match rule.op:
            case "exists":
                how = "semi" if rule.value == "true" else "anti"
                return self._all.join(rows, on="code", how=how)  # type: ignore[arg-type]  # both are
            case "is-a" | "descendent-of" | "generalizes" | "child-of" | "is-not-a" | "descendent-leaf":
                values = self._by_code(ComposeFilter("code", rule.op, rule.value))
                return rows.join(values, left_on="value", right_on="code", how="semi").select("code")
            case "not-in":
                held = rows.filter(
                    _matches(pl.col("value"), ComposeFilter(rule.property, "in", rule.value), "")
                )
                return self._all.join(held, on="code", how="anti")
        return rows.filter(_matches(pl.col("value"), rule, "")).select("code")


def _matches(value: pl.Expr, rule: ComposeFilter, system: str) -> pl.Expr:
    """Return whether a text passes ``=``, ``regex``, ``in`` or ``not-in``."""
    match rule.op:
        case "regex":
            return value.str.contains(f"^(?:{rule.value})$")
        case "in" | "not-in":
            if rule.property in _CODE_PROPERTIES:
                held = value.str.contains(f"^(?:{code_list_pattern(system, rule.value)})$")
            else:
                held = value.is_in([item.strip() for item in rule.value.split(",")])
            return held if rule.op == "in" else ~held
        case "=":
            return value == rule.value
        case "exists":
            return value.is_not_null() == pl.lit(rule.value == "true")
    raise InputError(
        f"The property '{rule.property}' has no operator '{rule.op}'.",
        remedy="Use '=', 'in', 'not-in', 'regex' or 'exists'.",
    )


def _all_parts(compose: Compose) -> list[ComposePart]:
    inner = [part for other in compose.sets.values() for part in _all_parts(other)]
    return [*compose.include, *compose.exclude, *inner]


def _outside_sets(compose: Compose) -> list[str]:
    own = {url for part in (*compose.include, *compose.exclude) for url in part.value_sets} - set(
        compose.sets
    )
    inner = {url for other in compose.sets.values() for url in _outside_sets(other)}
    return sorted(own | inner)

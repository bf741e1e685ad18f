"""Redaction policies: what happens to which class of column, and which standard that meets.

A policy is a file of the catalog, ``catalog/redaction/<name>.yaml``. It names the standard that it
claims to meet, and a policy that does less than the standard asks does not load.

``safe_harbor``
    45 CFR 164.514(b)(2). None of the 18 identifiers; of dates the year; ages over 89 are one group;
    three digits of the ZIP code. What remains is what codes and numbers tell in combination.
``expert_determination``
    45 CFR 164.514(b)(1), the technical part only. Dates are shifted per patient, so that intervals stay
    exact; all else as Safe Harbor. An expert must still find, and document, that the risk is very small.
``limited_dataset``
    45 CFR 164.514(e). No direct identifiers, but true dates, ages, city, state and ZIP code. It remains
    protected health information and needs a data use agreement.
``synthetic``
    No patient's data: for sources that are declared to be synthetic. Does at least what a limited data set
    asks, so that a wrong declaration does not let more out.

Pseudonyms are keyed codes under 164.514(c): they may be released because the key is not, and because
the server's ids say nothing about a person. Where a server builds ids from, say, record numbers, let an
expert judge that.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from cohortflow.errors import PolicyError
from cohortflow.model import Catalog, PhiClass
from cohortflow.redaction.actions import Action, FrozenModel, Rule, Treatment, TreatmentOrName
from cohortflow.redaction.results import AgeCode, load_age_codes
from cohortflow.redaction.standards import Standard, permits
from cohortflow.redaction.zip3 import restricted_prefixes

__all__ = ["PolicySettings", "RedactionPolicy", "check_strictness", "load_policy"]

_DROP: Final = Treatment(action=Action.DROP)
_HIPAA_AGE_CAP: Final = 89
_WEEK_DAYS: Final = 7

_Zip3 = Annotated[str, Field(pattern=r"^[0-9]{3}$")]
_AgeCode = Annotated[str, Field(pattern=r"^[^|\s]*\|[^|]*[^|\s][^|]*$")]
_ShiftDays = Annotated[int, Field(ge=1, le=3650)]
_AgeCap = Annotated[int, Field(ge=1, le=120)]


class PolicySettings(FrozenModel):
    """What a study sets of a policy; ``None`` leaves it as the policy says.

    Attributes are those of ``RedactionPolicy``.
    """

    shift_days: _ShiftDays | None = None
    keep_day_of_week: bool | None = None
    times: Literal["keep", "drop"] | None = None
    age_cap: _AgeCap | None = None
    also_restricted_zip3: frozenset[_Zip3] | None = None
    rows_without_subject: Literal["drop", "keep"] | None = None
    snapshots: Literal["latest", "linked"] | None = None

    @property
    def given(self) -> dict[str, Any]:
        """What the study sets."""
        return self.model_dump(exclude_none=True)


class RedactionPolicy(FrozenModel):
    """A policy, checked against the standard that it claims.

    Attributes:
        name: Name in the catalog.
        title: One line for people.
        standard: What it meets.
        guarantee: What a reader of the data may rely on, in plain words, for the release's documents.
        defaults: Treatment of each class; a class that is left out is dropped.
        rules: Exceptions by path or role.
        overridable: Classes whose treatment a study may change, with a written reason.
        configurable: Names of ``PolicySettings`` that a study may set.
        shift_days: Greatest shift of a date, in days, in either direction.
        keep_day_of_week: Whether dates move by whole weeks.
        times: Whether the time of day is kept when a date is shifted; it is not shifted.
        age_cap: Greatest age that is told; greater ones become one group, and no date shows them.
            ``None``: ages are told as they are.
        restricted_zip3: Name of a shipped list of three-digit ZIP codes that become 000.
        also_restricted_zip3: Further ones, since the list changes with every census.
        also_age_codes: ``system|code`` of results that are ages, beside those of ``age_codes.csv``; ``|code``
            holds for any system, and for the ``linkId`` of a question.
        rows_without_subject: What happens to rows that name no patient: they cannot be shifted or
            linked, nor be deleted on request, so they are dropped unless a policy says ``keep``
            (their dates are then null where dates are shifted).
        snapshots: What is published of several data intervals. ``latest``: one, a newer replaces it;
            ``linked``: all, side by side with the same pseudonyms, so that comparing two tells the days
            between which a row came. See ADR 0013.
    """

    name: str
    title: str
    standard: Standard
    guarantee: str = Field(min_length=1)
    defaults: dict[PhiClass, TreatmentOrName]
    rules: tuple[Rule, ...] = ()
    overridable: frozenset[PhiClass] = frozenset()
    configurable: frozenset[str] = frozenset()
    shift_days: _ShiftDays = 365
    keep_day_of_week: bool = False
    times: Literal["keep", "drop"] = "keep"
    age_cap: _AgeCap | None = _HIPAA_AGE_CAP
    restricted_zip3: str = "census_2000"
    also_restricted_zip3: frozenset[_Zip3] = frozenset()
    also_age_codes: frozenset[_AgeCode] = frozenset()
    rows_without_subject: Literal["drop", "keep"] = "drop"
    snapshots: Literal["latest", "linked"] = "latest"

    @field_validator("defaults", mode="before")
    @classmethod
    def _name_classes(cls, value: object) -> object:
        return {_phi(key): item for key, item in value.items()} if isinstance(value, dict) else value

    @field_validator("overridable", mode="before")
    @classmethod
    def _name_overridable(cls, value: object) -> object:
        return [_phi(item) for item in value] if isinstance(value, list | tuple | set | frozenset) else value

    @field_validator("overridable")
    @classmethod
    def _check_overridable(cls, value: frozenset[PhiClass]) -> frozenset[PhiClass]:
        if PhiClass.DIRECT_IDENTIFIER in value:
            msg = "direct identifiers are never overridable"
            raise ValueError(msg)
        return value

    @field_validator("configurable")
    @classmethod
    def _check_configurable(cls, value: frozenset[str]) -> frozenset[str]:
        if unknown := sorted(value - PolicySettings.model_fields.keys()):
            known = ", ".join(PolicySettings.model_fields)
            msg = f"'{unknown[0]}' is no setting of a study; these are {known}"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _check_standard(self) -> Self:
        for phi in PhiClass:
            if not self.permits(phi, self.default(phi)):
                msg = f"{self.standard} does not permit '{self.default(phi)}' for {phi.name}"
                raise ValueError(msg)
        deidentified = self.standard in {Standard.SAFE_HARBOR, Standard.EXPERT_DETERMINATION}
        if deidentified and (self.age_cap is None or self.age_cap > _HIPAA_AGE_CAP):
            msg = f"{self.standard} needs an age_cap of at most {_HIPAA_AGE_CAP}"
            raise ValueError(msg)
        if self.standard is Standard.SAFE_HARBOR and self.snapshots != "latest":
            msg = f"{self.standard} does not permit snapshots side by side, which tell dates to the day"
            raise ValueError(msg)
        if self.keep_day_of_week and self.shift_days < _WEEK_DAYS:
            msg = f"keep_day_of_week needs shift_days of at least {_WEEK_DAYS}"
            raise ValueError(msg)
        self.restricted_prefixes()
        return self

    @property
    def strictness(self) -> int:
        """Rank of its standard; greater is stricter."""
        return self.standard.strictness

    def default(self, phi: PhiClass) -> Treatment:
        """Return the treatment of a class where no rule says otherwise."""
        return self.defaults.get(phi, _DROP)

    def permits(self, phi: PhiClass, treatment: Treatment) -> bool:
        """Whether the standard lets this happen to a class."""
        return permits(self.standard, phi, treatment)

    def configure(self, settings: PolicySettings) -> RedactionPolicy:
        """Return the policy with what a study sets of it.

        Raises:
            PolicyError: The policy does not let a study set that, or would do less than it claims.
        """
        given = settings.given
        if fixed := sorted(given.keys() - self.configurable):
            known = ", ".join(sorted(self.configurable))
            remedy = f"It lets a study set {known}." if known else "Take one that does, such as 'expert'."
            raise PolicyError(f"Policy '{self.name}' does not let a study set '{fixed[0]}'.", remedy=remedy)
        try:
            return RedactionPolicy.model_validate(self.model_dump() | given)
        except ValidationError as error:
            raise PolicyError(_describe(error), remedy="Change what the study sets of its policy.") from error

    @property
    def age_codes(self) -> tuple[AgeCode, ...]:
        """Codes of results that are ages."""
        return (*load_age_codes(), *map(AgeCode.parse, sorted(self.also_age_codes)))

    def restricted_prefixes(self) -> frozenset[str]:
        """Return the three-digit ZIP codes that become 000."""
        return restricted_prefixes(self.restricted_zip3) | self.also_restricted_zip3


def _phi(name: object) -> object:
    if isinstance(name, str):
        if name not in PhiClass.__members__:
            msg = f"'{name}' is no class; the classes are {', '.join(PhiClass.__members__)}"
            raise ValueError(msg)
        return PhiClass[name]
    return name


def load_policy(catalog: Catalog, name: str) -> RedactionPolicy:
    """Read a policy of the catalog.

    Raises:
        CatalogError: There is none of this name, or it is not YAML.
        PolicyError: It is malformed, or does less than the standard that it claims.
    """
    value = catalog.load("redaction", name)
    place = str(catalog.path("redaction", name))
    try:
        policy = RedactionPolicy.model_validate(value)
    except ValidationError as error:
        raise PolicyError(_describe(error), place=place, remedy="Mend the policy.") from error
    if policy.name != name:
        raise PolicyError(
            f"The policy calls itself '{policy.name}'.", place=place, remedy=f"Name it '{name}', as its file."
        )
    return policy


def _describe(error: ValidationError) -> str:
    faults: list[str] = []
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        steps = list(fault["loc"])
        if steps[:1] == ["defaults"] and len(steps) > 1:
            steps[1] = PhiClass(int(steps[1])).name
        where = ".".join(str(step) for step in steps)
        faults.append(f"{where}: {fault['msg']}" if where else fault["msg"])
    return "; ".join(faults)


def check_strictness(
    policy: RedactionPolicy, weakest: Standard, *, environment: str, synthetic: bool = False
) -> None:
    """Check that a policy is at least as strict as an environment demands.

    Args:
        policy: The policy.
        weakest: The least strict standard that is allowed.
        environment: Name of the environment, for the message.
        synthetic: Whether the environment also takes policies for synthetic sources.

    Raises:
        PolicyError: It is weaker.
    """
    if policy.standard is Standard.SYNTHETIC:
        if not synthetic:
            raise PolicyError(
                f"Environment '{environment}' does not take policy '{policy.name}': it takes patients' data.",
                remedy="Choose another policy, or run the study in an environment for development.",
            )
        return
    if policy.strictness < weakest.strictness:
        raise PolicyError(
            f"Environment '{environment}' allows no redaction weaker than '{weakest}';"
            f" policy '{policy.name}' is '{policy.standard}'.",
            remedy="Choose a stricter policy, or run the study in another environment.",
        )

"""Redaction policies of the catalog."""

import pytest
import yaml
from pydantic import ValidationError

from cohortflow.errors import CatalogError, PolicyError
from cohortflow.model import Catalog, PhiClass
from cohortflow.redaction import RedactionPolicy, Standard, check_strictness, load_policy
from cohortflow.redaction.zip3 import restricted_prefixes

SHIPPED = Catalog.default().names("redaction")
BASE = {
    "name": "demo",
    "title": "Demo",
    "standard": "safe_harbor",
    "guarantee": "None of the identifiers.",
    "defaults": {"SAFE_CODE": "keep", "DATE": {"action": "generalize", "to": "year"}, "REFERENCE": "hash"},
}


def write_policy(tmp_path, **changes):
    folder = tmp_path / "redaction"
    folder.mkdir()
    (folder / "demo.yaml").write_text(yaml.safe_dump(BASE | changes))
    return Catalog(tmp_path)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_policies_load_and_say_what_they_guarantee(name):
    policy = load_policy(Catalog.default(), name)
    assert set(policy.defaults) == set(PhiClass)
    assert len(policy.guarantee) > 100


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_policies_drop_what_identifies(name):
    policy = load_policy(Catalog.default(), name)
    for phi in (PhiClass.UNKNOWN, PhiClass.DIRECT_IDENTIFIER, PhiClass.FREE_TEXT):
        assert str(policy.default(phi)) == "drop"
    assert str(policy.default(PhiClass.REFERENCE)) == "hash"


def test_a_class_without_a_default_is_dropped(tmp_path):
    policy = load_policy(write_policy(tmp_path), "demo")
    assert str(policy.default(PhiClass.QUASI_IDENTIFIER)) == "drop"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"defaults": {"DATE": "keep"}}, "safe_harbor does not permit 'keep' for DATE"),
        ({"defaults": {"DATE": "shift"}}, "safe_harbor does not permit 'shift' for DATE"),
        ({"defaults": {"FREE_TEXT": "keep"}}, "does not permit 'keep' for FREE_TEXT"),
        (
            {"standard": "limited_dataset", "defaults": {"DIRECT_IDENTIFIER": "keep"}},
            "does not permit 'keep' for DIRECT_IDENTIFIER",
        ),
        ({"standard": "limited_dataset", "defaults": {"REFERENCE": "keep"}}, "'keep' for REFERENCE"),
        ({"age_cap": 95}, "needs an age_cap of at most 89"),
        ({"age_cap": None}, "needs an age_cap of at most 89"),
        ({"defaults": {"DATES": "drop"}}, "'DATES' is no class"),
        ({"defaults": {"DATE": "redact"}}, "defaults.DATE.action"),
        ({"defaults": {"DATE": "generalize"}}, "'generalize' needs 'to'"),
        ({"defaults": {"DATE": {"action": "drop", "to": "year"}}}, "no other action takes it"),
        ({"rules": [{"action": "drop", "reason": "x"}]}, "either 'path' or 'role'"),
        ({"rules": [{"path": "a", "action": "drop"}]}, "rules.0.reason"),
        ({"restricted_zip3": "census_1790"}, "no list 'census_1790'"),
        ({"also_restricted_zip3": ["03601"]}, "also_restricted_zip3"),
        ({"overridable": ["DIRECT_IDENTIFIER"]}, "never overridable"),
        ({"shift_days": 0}, "shift_days"),
        ({"shift_days": 6, "keep_day_of_week": True}, "needs shift_days of at least 7"),
        ({"snapshots": "linked"}, "does not permit snapshots side by side"),
        ({"snapshots": "unlinked"}, "snapshots"),
        ({"configurable": ["salt"]}, "'salt' is no setting of a study"),
        ({"defaults": {"FREE_TEXT": "scrub"}}, "does not permit 'scrub' for FREE_TEXT"),
        (
            {"standard": "synthetic", "defaults": {"DIRECT_IDENTIFIER": "keep"}},
            "synthetic does not permit 'keep' for DIRECT_IDENTIFIER",
        ),
        ({"salt": "x"}, "Extra inputs are not permitted"),
    ],
)
def test_a_policy_that_does_less_than_it_claims_does_not_load(tmp_path, changes, message):
    with pytest.raises(PolicyError) as caught:
        load_policy(write_policy(tmp_path, **changes), "demo")
    assert message in caught.value.message
    assert caught.value.place.endswith("demo.yaml")


def test_an_unknown_policy_names_the_nearest():
    with pytest.raises(CatalogError) as caught:
        load_policy(Catalog.default(), "safe_habor")
    assert "safe_harbor" in caught.value.remedy


def test_a_policy_is_called_as_its_file(tmp_path):
    with pytest.raises(PolicyError, match="calls itself 'other'"):
        load_policy(write_policy(tmp_path, name="other"), "demo")


def test_a_policy_cannot_be_changed():
    policy = RedactionPolicy.model_validate(BASE)
    with pytest.raises(ValidationError):
        policy.shift_days = 1


def test_standards_are_ordered():
    safe_harbor, expert, limited = (
        Standard.SAFE_HARBOR,
        Standard.EXPERT_DETERMINATION,
        Standard.LIMITED_DATASET,
    )
    assert safe_harbor.strictness > expert.strictness > limited.strictness


def test_an_environment_refuses_a_weaker_policy():
    limited = load_policy(Catalog.default(), "limited_dataset")
    check_strictness(limited, Standard.LIMITED_DATASET, environment="prod")
    with pytest.raises(PolicyError, match="Environment 'dev' allows no redaction weaker than 'safe_harbor'"):
        check_strictness(limited, Standard.SAFE_HARBOR, environment="dev")


def test_synthetic_policies_need_a_permission_of_their_own():
    synthetic = load_policy(Catalog.default(), "synthetic_only")
    check_strictness(synthetic, Standard.SAFE_HARBOR, environment="dev", synthetic=True)
    with pytest.raises(PolicyError, match="does not take policy 'synthetic_only'"):
        check_strictness(synthetic, Standard.LIMITED_DATASET, environment="staging")


@pytest.mark.parametrize("name", ["safe_harbor", "shifted_dates", "expert", "dicom_basic"])
def test_what_is_deidentified_is_published_one_interval_at_a_time(name):
    assert load_policy(Catalog.default(), name).snapshots == "latest"


def test_expert_does_what_shifted_dates_does_until_it_is_configured():
    expert, shifted = (load_policy(Catalog.default(), name) for name in ("expert", "shifted_dates"))
    own = {"name", "title", "guarantee", "configurable", "overridable"}
    assert expert.model_dump(exclude=own) == shifted.model_dump(exclude=own)


def test_a_stricter_policy_is_always_welcome():
    check_strictness(
        load_policy(Catalog.default(), "safe_harbor"), Standard.LIMITED_DATASET, environment="prod"
    )


def test_the_restricted_zip_codes_are_those_of_the_guidance():
    guidance = "036 692 878 059 790 879 063 821 884 102 823 890 203 830 893 556 831"
    assert restricted_prefixes("census_2000") == frozenset(guidance.split())


def test_a_newer_census_adds_to_the_list():
    policy = RedactionPolicy.model_validate(BASE | {"also_restricted_zip3": ["205"]})
    assert policy.restricted_prefixes() == restricted_prefixes("census_2000") | {"205"}

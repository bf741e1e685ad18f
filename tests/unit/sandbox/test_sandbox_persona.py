"""Personas as data, and that their page in the documentation knows all of it."""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import pytest

from cohortflow.errors import ConfigurationError
from cohortflow.sandbox import CERNER, EPIC, GENERIC, PERSONAS, Persona, SandboxConfig, persona_named
from cohortflow.sandbox.faults import FaultKind
from cohortflow.sandbox.shaping import Shaper

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "sandbox.md").read_text(encoding="utf-8")


def test_the_page_names_every_persona_field_and_fault():
    told = set(re.findall(r"`([A-Za-z_-]+)", PAGE))
    untold = {"name", "software", "states_total"}  # need no telling
    assert {field.name for field in fields(Persona)} - told == untold
    assert set(get_args(FaultKind)) <= told
    assert set(PERSONAS) <= told


def test_every_persona_is_known_by_its_name():
    assert set(PERSONAS) == {"generic", "epic", "cerner", "soarian", "hdr"}
    assert all(persona_named(name).name == name for name in PERSONAS)
    with pytest.raises(ConfigurationError, match="no such persona") as caught:
        persona_named("meditech")
    assert "epic" in caught.value.remedy


def test_settings_win_over_the_persona(tmp_path):
    config = SandboxConfig(data=tmp_path, persona="epic", resources_per_file=7, gzip_files=False)
    persona = config.effective_persona()
    assert (persona.resources_per_file, persona.compression) == (7, "none")
    assert replace(persona, resources_per_file=3000, compression="negotiated") == EPIC
    assert SandboxConfig(data=tmp_path).effective_persona() == GENERIC == Persona()
    with pytest.raises(ConfigurationError):
        SandboxConfig(data=tmp_path, persona="nobody")


def test_a_subclass_keeps_its_methods_when_settings_change_it(tmp_path):
    class Loud(Persona):
        def shape_resource(self, resource_type, line):
            return line.upper()

    persona = SandboxConfig(data=tmp_path, persona=Loud(), page_size=3).effective_persona()
    assert persona.page_size == 3
    shaper = Shaper(persona)
    assert not shaper.changes_nothing
    assert shaper.line("Patient", b'{"id":"a"}') == b'{"ID":"A"}'


def test_only_personas_that_change_resources_cost_time():
    assert Shaper(GENERIC).changes_nothing
    assert Shaper(CERNER).changes_nothing
    assert not Shaper(EPIC).changes_nothing


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b'{"id":"a","meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}', b'{"id":"a"}'),
        (
            b'{"id":"a","meta":{"lastUpdated":"2024-01-01T00:00:00Z","source":"s"}}',
            b'{"id":"a","meta":{"source":"s"}}',
        ),
        (b'{"id":"a"}', b'{"id":"a"}'),
    ],
)
def test_last_updated_is_taken_out_and_nothing_else(line, shown):
    assert Shaper(replace(EPIC, long_id_types=frozenset())).line("Patient", line) == shown


def test_long_ids_go_both_ways():
    shaper = Shaper(replace(GENERIC, long_id_types=frozenset({"Patient", "Encounter"})))
    long = shaper.shown_id("Patient", "a")
    assert len(long) > 64
    assert shaper.stored_id("Patient", long) == "a"
    assert shaper.shown_id("Condition", "a") == "a"
    line = b'{"id":"c","subject":{"reference":"http://ehr/fhir/Patient/a"},"note":"Patient/a"}'
    shown = shaper.line("Condition", line).decode()
    assert f'"http://ehr/fhir/Patient/{long}"' in shown
    assert '"note":"Patient/a"' in shown
    assert shaper.stored_value(f"Patient/{long},b") == "Patient/a,b"

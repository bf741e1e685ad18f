"""The pages of vendors say what the profiles do."""

import argparse
import dataclasses
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from cohortflow.connectors import GENERIC, PROFILES, FhirSource, ServerProfile
from cohortflow.connectors.settings import CONNECTION_TYPES
from cohortflow.model import Connection
from cohortflow.sandbox import generate_client_key

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGES = {name: (DOCS / name).read_text(encoding="utf-8") for name in ("epic.md", "oracle-health.md")}


def rows(page, header):
    """Return the cells of the table whose header row begins with a text."""
    lines = iter(page.splitlines())
    for line in lines:
        if line.startswith(f"| {header} |"):
            break
    next(lines)
    found = []
    for line in lines:
        if not line.startswith("|"):
            return found
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def show(value):
    """Write a value of a profile as the pages do."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        items = sorted(value.items())
        return "; ".join(
            f"{key}: {' or '.join(item) if isinstance(item, tuple) else item}" for key, item in items
        )
    if isinstance(value, frozenset):
        return ", ".join(sorted(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def departures(profile):
    """Return the values that set a profile apart from a generic server, as text."""
    names = [item.name for item in dataclasses.fields(ServerProfile) if item.name not in ("name", "codes")]
    changed = {name: getattr(profile, name) for name in names}
    return {name: show(value) for name, value in changed.items() if value != getattr(GENERIC, name)}


def test_the_page_of_epic_has_the_profile():
    shown = {name.strip("`"): value for name, value in rows(PAGES["epic.md"], "value | epic")}
    assert shown.pop("codes") == "see below"
    assert shown == departures(PROFILES["epic"])


def test_the_page_of_oracle_health_has_the_profiles():
    table = rows(PAGES["oracle-health.md"], "value | cerner | soarian | hdr")
    for column, name in enumerate(("cerner", "soarian", "hdr"), start=1):
        cells = {row[0].strip("`"): row[1] if row[column] == "the same" else row[column] for row in table}
        assert cells == {key: show(getattr(PROFILES[name], key)) for key in cells}
        assert departures(PROFILES[name]).keys() <= cells.keys()
        assert not PROFILES[name].codes


def test_the_page_of_epic_has_its_codes():
    table = rows(PAGES["epic.md"], "code | meaning | what it says | what Cohortflow does | what you do")
    assert {row[0].strip("`"): row[1].strip("`") for row in table} == PROFILES["epic"].codes
    assert all(len(row) == 5 and all(row) for row in table)


@pytest.mark.parametrize(("name", "letter", "last"), [("epic.md", "E", 21), ("oracle-health.md", "O", 15)])
def test_every_peculiarity_of_a_vendor_is_listed_with_its_source(name, letter, last):
    vendor = "Epic" if letter == "E" else "Oracle"
    table = rows(PAGES[name], f"no. | what {vendor} does | known from | what Cohortflow does")
    assert [row[0] for row in table] == [f"{letter}{number}" for number in range(1, last + 1)]
    assert all(len(row) == 4 and all(row) and re.search(r"\b[VUP]\b", row[2]) for row in table)


def test_values_that_pages_name_exist():
    names = {item.name for item in dataclasses.fields(ServerProfile)} | {"concurrency"}
    table = rows((DOCS / "fhir-servers.md").read_text(encoding="utf-8"), "value | for")
    named = {name for row in table for name in re.findall(r"`(\w+)`", row[0])}
    assert named
    assert named <= names


def added():
    """Yield each connection that a page adds by Airflow's command."""
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^airflow connections add (.*)$", text, re.MULTILINE):
            yield pytest.param(line, id=f"{path.name}: {line.split()[0]}")


@pytest.mark.parametrize("line", list(added()))
def test_connections_that_are_added_by_command_are_accepted(tmp_path, line):
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("conn_id")
    for name in ("type", "host", "login", "password", "extra"):
        parser.add_argument(f"--conn-{name}", default="")
    given = parser.parse_args(shlex.split(line))
    extra = json.loads(given.conn_extra or "{}")
    if "private_key_file" in extra:
        key = tmp_path / "key.json"
        key.write_text(json.dumps(generate_client_key()[0]))
        extra = {name: value for name, value in extra.items() if name != "kid"}
        extra["private_key_file"] = str(key)
    source = FhirSource.from_connection(
        Connection(
            given.conn_id,
            given.conn_type,
            host=given.conn_host,
            login=given.conn_login,
            password=given.conn_password,
            extra=extra,
        )
    )
    assert source.profile.name == CONNECTION_TYPES[given.conn_type][0]


def test_pages_show_how_to_add_a_connection_of_each_type():
    lines = [item.values[0] for item in added()]
    assert {line.split("--conn-type ")[1].split()[0] for line in lines} == set(CONNECTION_TYPES)

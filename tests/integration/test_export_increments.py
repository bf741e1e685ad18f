"""Exports of what changed since the one before: watermarks, chains, and when everything comes anew."""

import asyncio
import dataclasses
import json

import pytest
from export_runs import DAY, ONE_DAY, OTHER, name_profile, requests

from cohortflow.errors import ArtifactNotFoundError
from cohortflow.sandbox import Fault
from cohortflow.workflow.spec import IncrementalSpec
from cohortflow.workflow.steps.extract import advance_extraction, extract_bulk, load_chain, load_extraction

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("own_state"), pytest.mark.timeout(120)]


@pytest.fixture
def site(folder_site):
    return folder_site


def incremental(run, full_every=30.0):
    source = run.plan.spec.source.model_copy(update={"incremental": IncrementalSpec(full_every=full_every)})
    spec = run.plan.spec.model_copy(update={"source": source})
    return dataclasses.replace(run, plan=dataclasses.replace(run.plan, spec=spec))


class TestIncrements:
    def extract(self, site, day=DAY, full_every=30.0, **options):
        run = incremental(site.open_run(day=day, **options), full_every)
        result = extract_bulk(run)
        return run, result.facts

    def test_the_next_interval_begins_where_the_last_export_ended(self, site):
        first, facts = self.extract(site)
        assert (facts["kind"], facts["exports"]) == ("full", 1)
        changed = {"resourceType": "Patient", "id": "newcomer", "gender": "other"}
        site.sandbox.put(changed)
        second, facts = self.extract(site, DAY + ONE_DAY)
        assert (facts["kind"], facts["exports"]) == ("incremental", 2)
        chain = load_chain(second)
        assert chain[0].export == load_extraction(first).export
        assert chain[1].since == chain[0].result.transaction_time, "the server's word, not our clock"
        assert sum(chain[1].result.resources.values()) < sum(chain[0].result.resources.values()) / 10
        third, _ = self.extract(site, DAY + 2 * ONE_DAY)
        assert [item.since for item in load_chain(third)] == [
            "",
            chain[0].result.transaction_time,
            chain[1].result.transaction_time,
        ]

    def test_a_repeated_run_reads_the_same_chain_without_a_request(self, site):
        self.extract(site)
        _, facts = self.extract(site, DAY + ONE_DAY)
        site.sandbox.log.clear()
        assert self.extract(site, DAY + ONE_DAY, run_id="again")[1] == facts
        assert requests(site) == []
        assert site.sandbox.log.count("token") == 0

    def test_everything_is_exported_again_once_it_is_time(self, site):
        self.extract(site)
        _, facts = self.extract(site, DAY + ONE_DAY, full_every=1e-6)
        assert facts["kind"] == "full"
        assert self.extract(site, DAY + 2 * ONE_DAY, full_every=1e-6)[1]["kind"] == "full"

    def test_another_request_begins_a_chain_of_its_own(self, site):
        self.extract(site)
        _, facts = self.extract(site, DAY + ONE_DAY, study=OTHER)
        assert facts["kind"] == "full"

    def test_a_server_without_since_exports_everything(self, site):
        name_profile(site, "generic", unsupported_parameters=["_since"])
        self.extract(site)
        assert self.extract(site, DAY + ONE_DAY)[1]["kind"] == "full"

    def test_an_older_interval_never_builds_on_a_newer_one(self, site):
        """Case 11."""
        newer, _ = self.extract(site, DAY + ONE_DAY)
        before = load_chain(newer)
        older, facts = self.extract(site, DAY)
        assert facts["kind"] == "full"
        assert load_chain(newer) == before
        latest, facts = self.extract(site, DAY + 2 * ONE_DAY)
        times = [item.result.transaction_time for item in load_chain(latest)]
        assert times == sorted(times)
        assert load_chain(latest)[0].export == load_extraction(older).export, "taken last"

    def test_a_study_that_wants_full_exports_is_not_given_increments(self, site):
        self.extract(site)
        self.extract(site, DAY + ONE_DAY)
        assert extract_bulk(site.open_run(day=DAY + ONE_DAY)).facts["kind"] == "full"

    def test_a_chain_whose_beginning_was_lost_is_begun_anew(self, site):
        first, _ = self.extract(site)
        second, _ = self.extract(site, DAY + ONE_DAY)
        first.raw.delete(load_extraction(first).export.prefix)
        with pytest.raises(ArtifactNotFoundError, match="builds on is missing"):
            load_chain(second)
        assert self.extract(site, DAY + ONE_DAY, run_id="again")[1]["kind"] == "full"
        assert len(load_chain(second)) == 1

    def test_a_base_that_was_replaced_is_noticed(self, site):
        first, _ = self.extract(site)
        second, _ = self.extract(site, DAY + ONE_DAY)
        state = json.loads(first.raw.read(f"{load_extraction(first).export.prefix}/_state.json"))
        state["transaction_time"] = "2026-11-01T12:00:00Z"
        first.raw.write(f"{load_extraction(first).export.prefix}/_state.json", json.dumps(state).encode())
        with pytest.raises(ArtifactNotFoundError, match="was replaced"):
            load_chain(second)

    def test_a_lost_registry_costs_one_full_export(self, site, tmp_path, monkeypatch):
        self.extract(site)
        monkeypatch.setenv("COHORTFLOW_STATE", str(tmp_path / "new"))
        assert self.extract(site, DAY + ONE_DAY)[1]["kind"] == "full"

    def test_a_registry_that_was_lost_learns_of_exports_again(self, site, tmp_path, monkeypatch):
        self.extract(site)
        monkeypatch.setenv("COHORTFLOW_STATE", str(tmp_path / "new"))
        site.sandbox.log.clear()
        self.extract(site, run_id="again")
        assert requests(site) == []
        assert self.extract(site, DAY + ONE_DAY)[1]["kind"] == "incremental"

    def test_killed_after_an_incremental_kick_off_the_same_increment_goes_on(self, site):
        self.extract(site)
        run = incremental(site.open_run(day=DAY + ONE_DAY))
        assert asyncio.run(advance_extraction(run)).reason == "server"
        site.sandbox.log.clear()
        _, facts = self.extract(site, DAY + ONE_DAY)
        assert (facts["kind"], requests(site)) == ("incremental", ["end"])

    def test_members_who_joined_bring_a_full_export(self, site, monkeypatch):
        """B10."""
        from cohortflow.workflow import export_base

        members = [("a", "b"), ("b",), ("b", "c"), None]
        answers = iter(members)

        async def read(_client, _group):
            return next(answers)

        monkeypatch.setattr(export_base, "read_members", read)
        kinds = [self.extract(site, DAY + number * ONE_DAY)[1]["kind"] for number in range(4)]
        assert kinds == ["full", "incremental", "full", "incremental"]

    def test_nothing_builds_on_an_export_that_lacks_something(self, site):
        self.extract(site)
        site.sandbox.faults.add(Fault(kind="export-outcome", on="kickoff", severity="error"))
        partial, facts = self.extract(site, DAY + ONE_DAY)
        assert (facts["kind"], facts["partial"]) == ("incremental", True)
        third, facts = self.extract(site, DAY + 2 * ONE_DAY)
        assert (facts["kind"], facts["exports"]) == ("incremental", 2)
        whole, mended = load_chain(third)
        assert mended.since == whole.result.transaction_time, "it brings again what the partial one lacks"
        assert load_extraction(partial).export.prefix not in {whole.export.prefix, mended.export.prefix}

    def test_a_full_export_that_lacks_something_is_followed_by_another(self, site):
        site.sandbox.faults.add(Fault(kind="export-outcome", on="kickoff", severity="error"))
        kinds = [self.extract(site, DAY + number * ONE_DAY)[1]["kind"] for number in range(3)]
        assert kinds == ["full", "full", "incremental"]

    def test_warnings_do_not_end_a_chain(self, site):
        site.sandbox.faults.add(Fault(kind="export-outcome", on="kickoff", severity="warning"))
        assert [self.extract(site, DAY + number * ONE_DAY)[1]["kind"] for number in range(2)] == [
            "full",
            "incremental",
        ]

    def test_a_type_that_the_server_had_not_before_brings_a_full_export(self, site):
        first, _ = self.extract(site)
        folder = load_extraction(first).export
        state = json.loads(asyncio.run(folder.read_state()))
        missing = {"severity": "warning", "code": "not-supported", "type": "Observation", "count": 1}
        kept = [item for item in state["files"] if item["type"] != "Observation"]
        told = {**kept[0], "section": "error", "type": "OperationOutcome", "name": "_errors/x.ndjson"}
        told["reasons"] = [missing]
        state["files"] = [*kept, told]
        asyncio.run(folder.write_state(json.dumps(state).encode()))
        statuses = {row.type: row.status for row in load_extraction(first).result.coverage}
        assert statuses["Observation"] == "unavailable"
        kinds = [self.extract(site, DAY + number * ONE_DAY)[1]["kind"] for number in (1, 2, 3)]
        assert kinds == ["incremental", "full", "incremental"]

    def test_killed_before_an_older_export_was_replaced_nobody_takes_it_for_a_full_one(
        self, site, monkeypatch
    ):
        from cohortflow.workflow import export_turn as turns

        self.extract(site)
        second, _ = self.extract(site, DAY + ONE_DAY)
        folder = load_extraction(second).export
        early = json.loads(asyncio.run(folder.read_state())) | {"transaction_time": "2026-11-01T23:00:00Z"}
        asyncio.run(folder.write_state(json.dumps(early).encode()))
        with monkeypatch.context() as patch:
            real = turns.write_link

            def die(*arguments):
                real(*arguments)
                raise KeyboardInterrupt

            patch.setattr(turns, "write_link", die)
            with pytest.raises(KeyboardInterrupt):
                self.extract(site, DAY + ONE_DAY, full_every=30.0, run_id="killed")
        with pytest.raises(ArtifactNotFoundError):
            load_chain(second)

    def test_members_are_read_from_the_group(self, site):
        run, _ = self.extract(site)
        prefix = load_extraction(run).export.prefix
        link = json.loads(run.raw.read(f"{prefix}.json"))
        assert len(set(link["members"])) == 60
        assert all(len(digest) == 32 for digest in link["members"])

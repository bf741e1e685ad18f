"""Probing: what a server says of itself, and which way of extracting fits."""

import pytest
from connectors_doubles import BASE
from search_doubles import SearchServer, answer, client_of

from cohortflow.connectors import advise, probe_source
from cohortflow.errors import ExportRejectedError

pytestmark = pytest.mark.anyio

EXPORT = {"name": "export", "definition": "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/group-export"}


def resource(kind, *parameters, search=True, operations=()):
    codes = ["read", "search-type"] if search else ["read"]
    return {
        "type": kind,
        "interaction": [{"code": code} for code in codes],
        "searchParam": [{"name": name} for name in parameters],
        "operation": list(operations),
    }


def statement(*resources, operations=()):
    return {
        "resourceType": "CapabilityStatement",
        "fhirVersion": "4.0.1",
        "software": {"name": "Server", "version": "7"},
        "rest": [{"mode": "server", "resource": list(resources), "operation": list(operations)}],
    }


SMART = {
    "token_endpoint": "https://login.example.org/token",
    "token_endpoint_auth_methods_supported": ["private_key_jwt"],
    "scopes_supported": ["system/*.rs"],
}


async def probe(capabilities, types=(), *, level=None, profile="generic", smart=SMART):
    server = SearchServer().on("metadata", answer(capabilities))
    server.on(".well-known/smart-configuration", answer(smart) if smart else answer({}, 404))
    async with client_of(server, profile=profile) as client:
        report = await probe_source(client)
        return report, advise(report, client, types, level)


async def test_a_server_with_exports():
    group = resource("Group", operations=[EXPORT])
    report, advice = await probe(
        statement(group, resource("Patient"), operations=[{"name": "$export"}]), ("Patient", "Device")
    )
    assert (report.fhir_version, report.software) == ("4.0.1", "Server 7")
    assert report.export_levels == ("group", "system")
    assert report.auth_methods == ("private_key_jwt",)
    assert advice.mode == "bulk"
    assert advice.missing == {"Device": "not in the CapabilityStatement"}


async def test_a_server_without_exports_is_crawled():
    resources = [resource("Patient"), resource("Observation", "patient"), resource("Basic", "code")]
    report, advice = await probe(statement(*resources), ("Patient", "Observation", "Basic"), smart=None)
    assert report.export_levels == ()
    assert report.faults == ("no SMART configuration",)
    assert advice.mode == "crawl"
    assert advice.missing == {"Basic": "cannot be searched by patient"}


async def test_another_level_than_the_study_wants():
    _, advice = await probe(statement(resource("Patient", operations=[EXPORT])), level="group")
    assert (advice.mode, "no group export" in advice.why) == ("crawl", True)


async def test_epic_exports_groups_although_it_does_not_say_so():
    report, advice = await probe(
        statement(resource("Patient")), ("MedicationAdministration",), profile="epic"
    )
    assert (report.export_levels, report.states_exports) == (("group",), False)
    assert advice.mode == "bulk"
    assert "left out of exports" in advice.missing["MedicationAdministration"]


async def test_nothing_fits():
    _, advice = await probe(statement(resource("Patient", search=False)))
    assert advice.mode is None


@pytest.mark.parametrize("capabilities", [[], {"resourceType": "Patient"}, "<html>"])
async def test_an_address_that_is_no_fhir_server(capabilities):
    with pytest.raises(ExportRejectedError, match="CapabilityStatement"):
        await probe(capabilities)


@pytest.mark.parametrize("rest", [None, {}, [None], [{"resource": [{"type": 7}, "x"], "operation": [None]}]])
async def test_malformed_parts_count_as_not_stated(rest):
    report, advice = await probe({"resourceType": "CapabilityStatement", "rest": rest}, smart={"x": BASE})
    assert (report.types, report.export_levels, advice.mode) == ((), (), None)

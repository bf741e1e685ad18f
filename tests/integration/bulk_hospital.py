"""A small hospital for tests of bulk export, and a client as a user configures it."""

import json

from integration_data import write_records

from cohortflow.connectors import BulkExtractor, FhirSource, RetryPolicy, run_extractor
from cohortflow.model import Connection
from cohortflow.sandbox import SandboxConfig

PATIENTS = 20
CONDITIONS = 80
FAST = RetryPolicy(base=0.01, cap=0.02)


def write_bulk_hospital(folder):
    """All patients are members of the Group ``cohort``; each has four Conditions."""
    members = [{"entity": {"reference": f"Patient/p{n}"}} for n in range(PATIENTS)]
    return write_records(
        folder,
        *({"resourceType": "Patient", "id": f"p{n}"} for n in range(PATIENTS)),
        *(
            {
                "resourceType": "Condition",
                "id": f"c{n}",
                "subject": {"reference": f"Patient/p{n % PATIENTS}"},
                "code": {"coding": [{"system": "http://snomed.info/sct", "code": "44054006"}]},
                "category": [{"coding": [{"code": "encounter-diagnosis"}]}],
            }
            for n in range(CONDITIONS)
        ),
        {"resourceType": "Group", "id": "cohort", "type": "person", "actual": True, "member": members},
    )


def config_of(data, jwks, **settings):
    """Configure a server that knows one client and is quick: a file of patients, three of conditions."""
    quick = {"export_seconds": 0.0, "retry_after": 0, "resources_per_file": 30}
    return SandboxConfig(data=data, clients={"research": jwks}, **(quick | settings))


def source_of(sandbox, key=None, **extra):
    """As a user writes it: a connection, whose token endpoint is discovered."""
    return FhirSource.from_connection(
        Connection(
            conn_id="hospital",
            conn_type="fhir",
            host=sandbox.base_url,
            login="research",
            password=json.dumps(key[0]) if key else "",
            extra={"scopes": "system/*.rs", **extra},
        )
    )


async def run_export(bulk, request, sink, progress=None, **options):
    """Run a whole bulk export and return its counts."""
    extractor = BulkExtractor(bulk, request, sink)
    return (await run_extractor(extractor, bulk.client.clock, progress, **options)).result


def resources(raw, result, kind):
    """The resources of a type in the files of an export, with repeats."""
    lines = b"".join(raw.store.read(f"{raw.prefix}/{name}") for name in result.files[kind]).splitlines()
    return [json.loads(line) for line in lines]


def ids(raw, result, kind):
    return [item["id"] for item in resources(raw, result, kind)]


def assert_whole(raw, result):
    """Every resource came, and came once."""
    assert result.resources == {"Patient": PATIENTS, "Condition": CONDITIONS}
    assert sorted(ids(raw, result, "Patient")) == sorted(f"p{n}" for n in range(PATIENTS))
    assert sorted(ids(raw, result, "Condition")) == sorted(f"c{n}" for n in range(CONDITIONS))

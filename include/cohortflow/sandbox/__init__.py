"""A sandbox EHR: a FHIR R4 server with SMART Backend Services and Bulk Data, for tests.

It stands for a hospital and shares no code with the rest of Cohortflow, so that the two cannot
agree on the same mistake. It holds test data only. ``/_sandbox`` and its client registration exist
in no real EHR.

    with running_sandbox(SandboxConfig(data=folder, open=True)) as sandbox:
        httpx.get(f"{sandbox.base_url}/Patient")
        sandbox.faults.add(Fault(kind="too-many-requests", on="status", times=2, retry_after=1))
        assert sandbox.log.count("kickoff") == 1

It keeps to the specifications, or plays a vendor's server: ``running_sandbox(config, persona=EPIC)``,
``persona="cerner"``, or a variant such as ``persona=dataclasses.replace(EPIC, kickoff_window=2.0)``.
"""

from cohortflow.sandbox.app import create_app
from cohortflow.sandbox.config import SandboxConfig
from cohortflow.sandbox.faults import Fault, FaultPlan
from cohortflow.sandbox.keys import generate_client_key
from cohortflow.sandbox.persona import PageLimit, Persona, RequiredParameters
from cohortflow.sandbox.personas import CERNER, EPIC, GENERIC, HDR, PERSONAS, SOARIAN, persona_named
from cohortflow.sandbox.request_log import RequestLog, RequestRecord
from cohortflow.sandbox.server import Sandbox, parse_client, running_sandbox, serve

__all__ = [
    "CERNER",
    "EPIC",
    "GENERIC",
    "HDR",
    "PERSONAS",
    "SOARIAN",
    "Fault",
    "FaultPlan",
    "PageLimit",
    "Persona",
    "RequestLog",
    "RequestRecord",
    "RequiredParameters",
    "Sandbox",
    "SandboxConfig",
    "create_app",
    "generate_client_key",
    "parse_client",
    "persona_named",
    "running_sandbox",
    "serve",
]

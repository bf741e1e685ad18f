"""Many exports from a server with random faults: no resource is lost, none comes twice.

``COHORTFLOW_SOAK_EXPORTS`` says how many (25 by default), ``COHORTFLOW_SOAK_SEED`` which faults. An export
may fail; then it is run again, as a scheduler would, until it is whole.
"""

import asyncio
import json
import os
import random
from collections import Counter
from dataclasses import replace

import pytest
from bulk_hospital import config_of, run_export, source_of
from integration_data import write_records

from cohortflow.connectors import (
    BulkExport,
    ExportRequest,
    Phase,
    RetryPolicy,
    connect,
)
from cohortflow.connectors.bulk import read_state
from cohortflow.errors import SourceError
from cohortflow.lake import RawExport, open_store
from cohortflow.model import EnvDeployment
from cohortflow.sandbox import Fault, generate_client_key, running_sandbox

pytestmark = [pytest.mark.integration, pytest.mark.anyio, pytest.mark.timeout(0)]

EXPORTS = int(os.environ.get("COHORTFLOW_SOAK_EXPORTS", "25"))
SEED = int(os.environ.get("COHORTFLOW_SOAK_SEED", "20260301"))
COUNTS = {"Patient": 30, "Condition": 120, "Observation": 200}
FAST = RetryPolicy(attempts=4, base=0.001, cap=0.002)
MOST_RUNS = 60


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    def record(kind, number):
        subject = {"subject": {"reference": f"Patient/Patient-{number % COUNTS['Patient']}"}}
        return {"resourceType": kind, "id": f"{kind}-{number}", **(subject if kind != "Patient" else {})}

    records = (record(kind, number) for kind, count in COUNTS.items() for number in range(count))
    return write_records(tmp_path_factory.mktemp("hospital") / "data", *records)


def draw_fault(draw: random.Random) -> Fault:
    """One thing that goes wrong somewhere."""
    on = draw.choice(["kickoff", "status", "status", "file", "file", "file", "token"])
    kinds = ["unavailable", "server-error", "gateway-timeout", "too-many-requests"]
    if on in ("status", "file"):
        kinds += ["unauthorized"]
    if on == "status":
        kinds += ["gone"]
    if on == "file":
        kinds += ["truncate", "truncate", "drop-lines", "cut-file", "gone"]
    return Fault(
        kind=draw.choice(kinds),
        on=on,
        times=draw.randint(1, 3),
        after=draw.randint(0, 4),
        lines=draw.randint(1, 5),
        at_bytes=draw.choice([None, 0, 1, 700, 5000]),
    )


async def run_once(source, request, raw, draw) -> bool:
    """Run an export once, and stop it now and then; tell whether it came to its end."""
    async with connect(source, policy=FAST) as client:
        run = asyncio.create_task(run_export(BulkExport(client), request, raw))
        if draw.random() < 0.2:
            done, _ = await asyncio.wait([run], timeout=draw.random() * 0.2)
            if not done:
                run.cancel()
        try:
            await run
        except (SourceError, asyncio.CancelledError):
            return False
    return True


def received(raw, state) -> Counter[str]:
    found: Counter[str] = Counter()
    for item in state.files:
        for piece in item.pieces if item.section == "output" else ():
            for line in raw.store.read(f"{raw.prefix}/{piece.name}").splitlines():
                resource = json.loads(line)
                found[f"{resource['resourceType']}/{resource['id']}"] += 1
    return found


async def test_random_faults_lose_and_double_nothing(data, tmp_path, record_property):
    draw = random.Random(SEED)
    key = generate_client_key()
    expected = Counter({f"{kind}/{kind}-{n}": 1 for kind, count in COUNTS.items() for n in range(count)})
    store = open_store(str(tmp_path / "lake"), EnvDeployment({}))
    configs = [
        {"gzip_files": gzip_files, "file_delivery": delivery, "resources_per_file": 25}
        for gzip_files in (True, False)
        for delivery in ("token", "open", "redirect")
    ]
    faults = runs = 0
    for turn, settings in enumerate(configs):
        config = config_of(data, key[1], **settings)
        with running_sandbox(config) as sandbox:
            source = source_of(sandbox, key)
            source = replace(source, profile=source.profile.with_overrides({"poll_seconds": 0.01}))
            for number in range(turn, EXPORTS, len(configs)):
                extra = draw.choice(
                    [(), (("allowPartialManifests", "true"),), (("organizeOutputBy", "Patient"),)]
                )
                request = ExportRequest(types=tuple(COUNTS), extra=extra)
                raw = RawExport(store, f"export-{number}")
                planned = [draw_fault(draw) for _ in range(draw.randint(1, 6))]
                faults += len(planned)
                sandbox.faults.add(*planned)
                whole = False
                for _ in range(MOST_RUNS):
                    runs += 1
                    if whole := await run_once(source, request, raw, draw):
                        break
                sandbox.faults.clear()
                state = await read_state(raw)
                assert whole, f"export {number} of seed {SEED} did not end: {[f.kind for f in planned]}"
                assert state.phase is Phase.COMPLETE
                found = received(raw, state)
                assert found == expected, (
                    f"export {number} of seed {SEED} ({settings}, {extra}, {[f.kind for f in planned]}): "
                    f"{len(expected - found)} lost, {len(found - expected)} doubled"
                )
                store.delete(raw.prefix)
    record_property("soak", f"{EXPORTS} exports, {runs} runs, {faults} faults")

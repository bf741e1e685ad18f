"""Whatever a source exports and deletes, in whatever order: the snapshot is what a plain dictionary holds."""

import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from cohortflow.fhir.snapshot import TOMBSTONE_SCHEMA, Snapshot, SnapshotExport, hide_subjects
from cohortflow.fhir.views import compile_view

EPOCH = datetime(2026, 11, 1, tzinfo=UTC)
IDS = st.sampled_from(["a", "b", "c", "d"])
PATIENTS = st.sampled_from(["p", "q"])
# One instant written in three ways, and two others; null where the source sends none.
UPDATED = st.sampled_from(
    [
        None,
        "2026-01-01T00:00:00Z",
        "2026-01-01T01:00:00.000+01:00",
        "2025-12-31T19:00:00-05:00",
        "2026-01-01T00:00:00.001Z",
        "2025-06-01T00:00:00Z",
    ]
)
FILE = st.lists(st.tuples(IDS, PATIENTS, UPDATED, st.booleans()), max_size=5)
EXPORTS = st.lists(
    st.tuples(st.lists(FILE, max_size=3), st.lists(PATIENTS, max_size=2, unique=True)), min_size=1, max_size=4
)
DELETIONS = st.lists(
    st.one_of(
        st.tuples(st.just("Observation"), IDS, st.integers(-1, 5)),
        st.tuples(st.just("Patient"), PATIENTS, st.integers(-1, 5)),
    ),
    max_size=5,
)
VIEWS = [
    compile_view(
        {
            "resourceType": "ViewDefinition",
            "name": name,
            "status": "active",
            "resource": "Observation",
            "select": [
                {
                    "column": [
                        {"name": "id", "path": "getResourceKey()"},
                        {"name": "subject", "path": "subject.getReferenceKey(Patient)"},
                        {"name": "version", "path": "status"},
                    ]
                }
            ],
        }
    )
    for name in ("one", "two")
]


def model(exports, deletions):
    """Return the valid version by id, and the patients that are hidden, resource by resource."""
    valid, patients = {}, {}
    for time, (files, present) in enumerate(exports):
        occurrences = {}
        for resource in (resource for file in files for resource in file):
            occurrences.setdefault(resource[0], []).append(resource)
        for key, found in occurrences.items():
            if all(resource[2] for resource in found):
                newest = max(datetime.fromisoformat(resource[2]) for resource in found)
                found = [one for one in found if datetime.fromisoformat(one[2]) == newest]  # noqa: PLW2901
            valid[key] = (time, found[-1])
        patients |= dict.fromkeys(present, time)
    for kind, key, reach in deletions:
        if kind == "Observation" and key in valid and valid[key][0] <= reach:
            # What an earlier deletion took, a later export brought back; what is left is in a later one.
            valid.pop(key)
    gone = {}
    for kind, key, reach in deletions:
        if kind == "Patient":
            gone[key] = max(reach, gone.get(key, -1))
    hidden = {key for key, reach in gone.items() if patients.get(key, -1) <= reach}
    # Of a valid version that is malformed nothing can be read, and an older one is not taken for it.
    readable = {key: one for key, (_, one) in valid.items() if not one[4]}
    rows = {(key, one[1], one[3]) for key, one in readable.items() if one[1] not in hidden}
    return rows, hidden


def write(folder, name, resources):
    path = Path(folder) / name
    path.write_text("".join(f"{json.dumps(resource)}\n" for resource in resources))
    return str(path)


def observation(key, patient, updated, version, malformed):
    return {
        "resourceType": "Observation",
        "id": key,
        "status": {"no": "text"} if malformed else version,
        "subject": {"reference": f"Patient/{patient}"},
        **({"meta": {"lastUpdated": updated}} if updated else {}),
    }


@settings(max_examples=60)
@given(drawn=EXPORTS, deletions=DELETIONS, data=st.data())
def test_the_snapshot_is_what_a_dictionary_holds(drawn, deletions, data):
    versions = iter(range(1000))
    exports = [
        ([[(*one[:3], f"v{next(versions)}", one[3]) for one in file] for file in files], present)
        for files, present in drawn
    ]
    rows, hidden = model(exports, deletions)
    with tempfile.TemporaryDirectory() as folder:
        chain = []
        for time, (files, present) in enumerate(exports):
            paths = {
                "Observation": [
                    write(folder, f"{time}.{number}.ndjson", [observation(*one) for one in file])
                    for number, file in enumerate(files)
                ],
                "Patient": [
                    write(
                        folder,
                        f"{time}.p.ndjson",
                        [{"resourceType": "Patient", "id": one} for one in present],
                    )
                ],
            }
            chain.append(SnapshotExport(EPOCH + timedelta(hours=time), f"{time}", paths))
        # Exports come in any order, and some of them again.
        shuffled = data.draw(st.permutations(chain)) + data.draw(st.lists(st.sampled_from(chain), max_size=2))
        tombstones = pl.DataFrame(
            # A deletion is as of its export, or was reported between two of them.
            [
                (kind, key, EPOCH + timedelta(hours=reach, minutes=reach % 2))
                for kind, key, reach in deletions
            ],
            schema=TOMBSTONE_SCHEMA,
            orient="row",
        )
        snapshot = Snapshot(tuple(shuffled), tombstones)
        targets = {view.name: Path(folder) / f"{view.name}.parquet" for view in VIEWS}
        read = snapshot.execute(
            VIEWS,
            lambda frames: [
                hide_subjects(frame, "subject", snapshot.hidden_patients).sink_parquet(
                    targets[name], lazy=True
                )
                for name, frame in frames.items()
            ],
        )
        assert set(snapshot.hidden_patients["id"]) == hidden
        for target in targets.values():
            found = pl.read_parquet(target)
            assert found.height == len(rows)
            assert set(found.iter_rows()) == rows
        occurrences = [one for files, _ in exports for file in files for one in file]
        assert read.malformed.height == sum(one[4] for one in occurrences)
        valid = len(occurrences) - read.malformed.height - read.superseded - read.duplicates - read.deleted
        assert len(rows) <= valid <= len({one[0] for one in occurrences})

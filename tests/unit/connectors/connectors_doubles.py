"""Doubles for the tests of the connectors: a clock, a folder as raw zone, a scripted server."""

import json
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from cohortflow.connectors import BulkExport, BulkExtractor, FhirSource, RetryPolicy, connect, run_extractor

BASE = "https://ehr.example.org/fhir"
FILES = "https://ehr.example.org/files"
STATUS = "https://ehr.example.org/jobs/7f3a?secret=s3cr3t"
TIME = "2026-03-01T08:00:00.000Z"


class FakeClock:
    """Time that passes only while something sleeps."""

    def __init__(self, now=1_772_352_000.0):
        self.now = now
        self.slept = []

    def time(self):
        return self.now

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


class FolderSink:
    """A local folder with the atomicity that RawSink asks for."""

    def __init__(self, root: Path):
        self.root = root
        self.written = []

    async def read_state(self):
        path = self.root / "_state.json"
        return path.read_bytes() if path.exists() else None

    async def write_state(self, state):
        self.root.mkdir(parents=True, exist_ok=True)
        temporary = self.root / "_state.tmp"
        temporary.write_bytes(state)
        temporary.replace(self.root / "_state.json")

    async def write_file(self, name, chunks):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        try:
            with temporary.open("wb") as file:
                async for chunk in chunks:
                    file.write(chunk)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        self.written.append(name)

    async def file_size(self, name):
        path = self.root / name
        return path.stat().st_size if path.exists() else None

    async def remove_files(self):
        for path in self.root.rglob("*.ndjson"):
            path.unlink()

    def state(self):
        return json.loads((self.root / "_state.json").read_text())

    def files(self):
        return {str(path.relative_to(self.root)): path.read_bytes() for path in self.root.rglob("*.ndjson")}


class Chunks(httpx.AsyncByteStream):
    """A body in pieces that may break off with an error."""

    def __init__(self, *chunks, error=None):
        self.chunks = chunks
        self.error = error

    async def __aiter__(self):
        for chunk in self.chunks:
            yield chunk
        if self.error:
            raise self.error


def reply(status=200, *, body=b"", headers=None, stream=None):
    """Return a maker of responses; a dict as body is sent as JSON."""

    def make(request):
        if stream is not None:
            return httpx.Response(status, headers=headers, stream=stream())
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        length = {"Content-Length": str(len(content))}
        return httpx.Response(status, headers={**length, **(headers or {})}, stream=Chunks(content))

    return make


def outcome(severity, code="processing", *, details="", diagnostics="Jane Doe, MRN 4711"):
    issue = {"severity": severity, "code": code, "diagnostics": diagnostics}
    if details:
        issue["details"] = {"coding": [{"system": "urn:oid:1.2.3", "code": details}], "text": diagnostics}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


def ndjson(kind, *ids):
    return b"".join(json.dumps({"resourceType": kind, "id": i}).encode() + b"\n" for i in ids)


def manifest(output=(), *, error=(), deleted=(), token=True, **more):
    def items(files):
        return [{"type": kind, "url": url, **extra} for kind, url, extra in files]

    return {
        "transactionTime": TIME,
        "request": f"{BASE}/$export",
        "requiresAccessToken": token,
        "output": items(output),
        "error": items(error),
        "deleted": items(deleted),
        **more,
    }


@dataclass
class Ehr:
    """A scripted server: every route answers with its replies in turn, the last one for ever."""

    routes: dict = field(default_factory=dict)
    requests: list = field(default_factory=list)
    calls: dict = field(default_factory=lambda: defaultdict(int))

    def on(self, method, url, *replies):
        key = method, url.split("?")[0]
        self.routes[key] = list(replies)
        self.calls[key] = 0
        return self

    def last(self, method, url):
        return self.routes[method, url.split("?")[0]][-1]

    def __call__(self, request):
        key = request.method, str(request.url).split("?")[0]
        self.requests.append(request)
        replies = self.routes.get(key)
        if replies is None:
            return httpx.Response(404)
        made = replies[min(self.calls[key], len(replies) - 1)]
        self.calls[key] += 1
        if isinstance(made, Exception):
            raise made
        return made(request)

    def sent(self, method, url):
        return [
            r for r in self.requests if r.method == method and str(r.url).split("?")[0] == url.split("?")[0]
        ]


@asynccontextmanager
async def bulk_of(ehr, *, source=None, clock=None, attempts=4):
    """Open the export operations against a scripted server; waits draw 0.5."""
    source = source or FhirSource("ehr", BASE)
    policy = RetryPolicy(attempts=attempts, random=lambda: 0.5)
    async with connect(
        source, clock=clock or FakeClock(), policy=policy, transport=httpx.MockTransport(ehr)
    ) as client:
        yield BulkExport(client)


async def run_export(bulk, request, sink, progress=None, **options):
    """Run a whole bulk export and return its counts."""
    extractor = BulkExtractor(bulk, request, sink)
    return (await run_extractor(extractor, bulk.client.clock, progress, **options)).result

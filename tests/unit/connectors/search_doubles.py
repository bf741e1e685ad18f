"""A FHIR server of a few resources for the tests of search: scripted where it has to misbehave."""

import json
from collections import Counter
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlsplit

import httpx
from connectors_doubles import BASE, FakeClock, FolderSink

from cohortflow.connectors import PROFILES, FhirSource, RetryPolicy, connect

DATE = "Mon, 02 Mar 2026 08:00:00 GMT"


class ReadableFolder(FolderSink):
    """A folder as raw zone that can be read."""

    async def read_file(self, name):
        yield (self.root / name).read_bytes()

    def resources(self, kind=""):
        """All resources in the files that the state names, as type and id, with repeats."""
        names = [file["name"] for unit in self.state()["units"].values() for file in unit["files"]]
        return [
            (resource["resourceType"], resource["id"])
            for name in sorted(names)
            for resource in map(json.loads, (self.root / name).read_text().splitlines())
            if kind in ("", resource["resourceType"])
        ]


def observation(name, patient, category="laboratory", **more):
    return {
        "resourceType": "Observation",
        "id": name,
        "subject": {"reference": f"Patient/{patient}"},
        "category": [{"coding": [{"code": category}]}],
        **more,
    }


def issue(code, *, severity="warning", kind="processing", text=""):
    """An OperationOutcome with a vendor's code."""
    details = {"coding": [{"system": "urn:oid:1.2.3.657369", "code": code}], "text": text} if code else {}
    return {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": severity, "code": kind, "details": details, "diagnostics": text}],
    }


def bundle(resources=(), *, following="", self_url="", included=(), outcomes=()):
    def entries(items, mode):
        return [{"resource": item, "search": {"mode": mode}} for item in items]

    links = [{"relation": "self", "url": self_url}] if self_url else []
    links += [{"relation": "next", "url": following}] if following else []
    return {
        "resourceType": "Bundle",
        "type": "searchset",
        "link": links,
        "entry": [
            *entries(resources, "match"),
            *entries(included, "include"),
            *entries(outcomes, "outcome"),
        ],
    }


def answer(value, status=200, headers=None):
    return httpx.Response(status, json=value, headers={"Date": DATE, **(headers or {})})


class SearchServer:
    """Answers reads, and searches by patient, category and _id, with pages of a few resources.

    ``script`` maps a query (path and query string below the base URL, decoded) or a path to a list of
    answers, used one after another; once they are used up, the server answers by itself.
    """

    def __init__(self, *resources, page_size=2):
        self.resources = {f"{item['resourceType']}/{item['id']}": item for item in resources}
        self.page_size = page_size
        self.script = {}
        self.requests = []

    def on(self, what, *answers):
        self.script.setdefault(what, []).extend(answers)
        return self

    def asked(self):
        return Counter(self.requests)

    def __call__(self, request):
        url = httpx.URL(str(request.url))
        path = url.path.removeprefix("/fhir/")
        pairs = parse_qsl(urlsplit(str(request.url)).query)
        if path.endswith("/_search"):
            path = path.removesuffix("/_search")
            pairs = parse_qsl(request.content.decode())
        query = "&".join(f"{name}={value}" for name, value in pairs)
        key = f"{path}?{query}" if query else path
        self.requests.append(key)
        for name in (key, path):
            if self.script.get(name):
                made = self.script[name].pop(0)
                return made(request) if callable(made) else made
        if path == "metadata":
            return answer({"resourceType": "CapabilityStatement"})
        if "/" in path:
            found = self.resources.get(path)
            return answer(found) if found else answer(issue("", severity="error", kind="not-found"), 404)
        return self.search(path, pairs)

    def search(self, kind, pairs):
        wanted = dict(pairs)
        found = [
            item
            for item in self.resources.values()
            if item["resourceType"] == kind and self._matches(item, wanted)
        ]
        first = int(wanted.get("page", 0))
        size = int(wanted.get("_count", self.page_size))
        stated = "&".join(f"{name}={value}" for name, value in pairs if name != "page")
        following = f"{BASE}/{kind}?{stated}&page={first + size}" if first + size < len(found) else ""
        return answer(
            bundle(found[first : first + size], following=following, self_url=f"{BASE}/{kind}?{stated}")
        )

    @staticmethod
    def _matches(item, wanted):
        if "patient" in wanted and item.get("subject", {}).get("reference") != f"Patient/{wanted['patient']}":
            return False
        if "_id" in wanted and item["id"] not in wanted["_id"].split(","):
            return False
        if "category" in wanted:
            return item["category"][0]["coding"][0]["code"] in wanted["category"].split(",")
        return True


@asynccontextmanager
async def client_of(server, *, profile="generic", clock=None, attempts=2, concurrency=1):
    """Open a client of a scripted server; waits draw 0.5."""
    source = FhirSource("ehr", BASE, profile=PROFILES[profile], concurrency=concurrency)
    policy = RetryPolicy(attempts=attempts, random=lambda: 0.5)
    async with connect(
        source, clock=clock or FakeClock(), policy=policy, transport=httpx.MockTransport(server)
    ) as client:
        yield client

"""Hydration: members, medications, staff and notes that an export leaves out."""

import base64
import json

import httpx
import pytest
from connectors_doubles import BASE, FakeClock
from search_doubles import ReadableFolder, SearchServer, answer, client_of, issue, observation

from cohortflow.connectors import HydrationRequest
from cohortflow.connectors.hydrate import Hydrator
from cohortflow.connectors.hydrate.references import REFERENCE_RULES, find_references
from cohortflow.errors import ArtifactNotFoundError, InputError, TransientSourceError

pytestmark = pytest.mark.anyio

MEMBERS = HydrationRequest(("members",))
HTML = b"<p>Fine.</p>"


class Killed(Exception):  # noqa: N818  # what it is
    """Ends a worker in the middle of its work."""


def panel(name, *members):
    return observation(name, "p1", hasMember=[{"reference": text} for text in members])


def note(name, url, kind="text/html", **more):
    attachment = {"contentType": kind, "url": url, **more}
    return {"resourceType": "DocumentReference", "id": name, "content": [{"attachment": attachment}]}


@pytest.fixture
def folder(tmp_path):
    return ReadableFolder(tmp_path / "raw")


def export(folder, *resources):
    """Write what an export brought; return its files by type."""
    files = {}
    for resource in resources:
        kind = resource["resourceType"]
        files[kind] = (f"{kind}/{kind}.0001.ndjson",)
        path = folder.root / files[kind][0]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(resource) + "\n")
    return files


async def hydrate(server, folder, files, request=MEMBERS, *, clock=None, **options):
    clock = clock or FakeClock()
    async with client_of(server, clock=clock, **options) as client:
        hydrator = Hydrator(client, request, folder, files)
        while (pending := await hydrator.advance()) is not None:
            await clock.sleep(pending.wait_seconds)
        return await hydrator.result()


def fetched(folder, result):
    return sorted(
        (resource["resourceType"], resource["id"])
        for names in result.files.values()
        for name in names
        for resource in map(json.loads, (folder.root / name).read_text().splitlines())
    )


@pytest.mark.parametrize("profile", ["generic", "epic"])
async def test_members_of_members_are_fetched_once_each(folder, profile):
    server = SearchServer(
        observation("m1", "p1"),
        panel("m2", f"{BASE}/Observation/m3", "Observation/m1"),
        observation("m3", "p1"),
    )
    report = {
        "resourceType": "DiagnosticReport",
        "id": "r",
        "result": [{"reference": "Observation/m1"}, {"reference": "Observation/here"}],
    }
    files = export(
        folder,
        panel("here", "Observation/m1/_history/4", "Observation/m2"),
        panel("b", "Observation/m1"),
        report,
    )
    result = await hydrate(server, folder, files, profile=profile)
    assert fetched(folder, result) == [("Observation", "m1"), ("Observation", "m2"), ("Observation", "m3")]
    assert dict(result.missing) == {}
    if profile == "epic":
        assert server.asked() == {f"Observation/m{number}": 1 for number in (1, 2, 3)}


async def test_depth_is_limited(folder):
    server = SearchServer(*[panel(f"m{n}", f"Observation/m{n + 1}") for n in range(1, 6)])
    result = await hydrate(server, folder, export(folder, panel("a", "Observation/m1")))
    assert [name for _, name in fetched(folder, result)] == ["m1", "m2", "m3"]


async def test_other_references_of_an_observation_are_not_followed(folder):
    server = SearchServer(observation("x", "p1"))
    files = export(folder, observation("a", "p1", derivedFrom=[{"reference": "Observation/x"}]))
    assert (await hydrate(server, folder, files)).files == {}
    assert server.requests == []


async def test_what_does_not_come_is_counted_by_reason(folder):
    server = SearchServer().on("Observation/secret", answer(issue("4130"), 403))
    server.on("Observation/old", answer({}, 410))
    files = export(
        folder,
        panel("a", "Observation/none", "Observation/secret", "Observation/old", "#c"),
        panel("b", "https://other.example.org/fhir/Observation/z", "Observation?identifier=1"),
    )
    result = await hydrate(server, folder, files, profile="epic")
    assert result.missing == {
        "Observation": {
            "break-the-glass": 1,
            "deleted": 1,
            "not-found": 1,
            "other-server": 1,
            "unresolvable": 1,
        }
    }
    (fact,) = result.coverage
    assert (fact.status, fact.received) == ("partial", 0)
    assert all("other.example.org" not in key for key in server.requests)


async def test_medications_and_staff_are_read_in_batches(folder):
    server = SearchServer(
        *({"resourceType": "Medication", "id": f"m{n}"} for n in range(3)),
        {"resourceType": "Practitioner", "id": "d"},
        {"resourceType": "Organization", "id": "ward", "partOf": {"reference": "Organization/clinic"}},
        {"resourceType": "Organization", "id": "clinic"},
    )
    orders = [
        {
            "resourceType": "MedicationRequest",
            "id": f"r{n}",
            "medicationReference": {"reference": f"Medication/m{n % 3}"},
            "requester": {"reference": "Practitioner/d"},
        }
        for n in range(9)
    ]
    encounter = {
        "resourceType": "Encounter",
        "id": "e",
        "serviceProvider": {"reference": "Organization/ward"},
    }
    result = await hydrate(server, folder, export(folder, *orders, encounter), HydrationRequest())
    assert len(fetched(folder, result)) == 6
    assert server.asked()["Medication?_id=m0,m1,m2&_count=3"] == 1
    assert len(server.requests) == 4  # the clinic in a round of its own


async def test_types_that_nobody_wants_are_not_fetched(folder):
    server = SearchServer({"resourceType": "Organization", "id": "o"})
    encounter = {
        "resourceType": "Encounter",
        "id": "e",
        "serviceProvider": {"reference": "Organization/o"},
        "participant": [{"individual": {"reference": "Practitioner/d"}}],
    }
    request = HydrationRequest(types=("Encounter", "Organization"))
    result = await hydrate(server, folder, export(folder, encounter), request)
    assert fetched(folder, result) == [("Organization", "o")]
    assert server.requests == ["Organization/o"]


async def test_a_server_without_batches_is_read_one_by_one(folder):
    server = SearchServer(observation("m1", "p1"), observation("m2", "p1"))
    server.on("Observation?_id=m1,m2&_count=2", answer({}, 400))
    result = await hydrate(server, folder, export(folder, panel("a", "Observation/m1", "Observation/m2")))
    assert len(fetched(folder, result)) == 2


async def test_an_interrupted_pass_goes_on_without_asking_twice(folder):
    server = SearchServer(*[observation(f"m{n}", "p1") for n in range(9)])
    files = export(folder, panel("a", *[f"Observation/m{n}" for n in range(9)]))
    request = HydrationRequest(("members",), resources_per_part=3)

    def dying(sent):
        if len(server.requests) == 5:
            raise Killed
        return server(sent)

    with pytest.raises(Killed):
        await hydrate(dying, folder, files, request, profile="epic")
    result = await hydrate(server, folder, files, request, profile="epic")
    assert len(fetched(folder, result)) == len(set(fetched(folder, result))) == 9
    asked = server.asked()
    assert [asked[f"Observation/m{n}"] for n in range(3)] == [1, 1, 1]  # the first part was complete
    server.requests.clear()
    assert await hydrate(server, folder, files, request, profile="epic") == result
    assert server.requests == []


async def test_a_result_is_there_only_when_complete(folder):
    async with client_of(SearchServer()) as client:
        with pytest.raises(ArtifactNotFoundError):
            await Hydrator(client, MEMBERS, folder, {}).result()


async def test_a_server_that_is_down_ends_the_pass(folder):
    files = export(folder, panel("a", *[f"Observation/m{n}" for n in range(9)]))
    with pytest.raises(TransientSourceError):
        await hydrate(lambda _: answer({}, 503), folder, files, profile="epic")


async def test_a_record_that_breaks_the_server_is_left_out_after_three_tries(folder):
    server = SearchServer(observation("m2", "p1")).on("Observation/m1", *[answer({}, 504)] * 20)
    files = export(folder, panel("a", "Observation/m1", "Observation/m2"))
    clock = FakeClock()
    result = await hydrate(server, folder, files, profile="epic", clock=clock)
    assert result.missing == {"Observation": {"unavailable": 1}}
    assert fetched(folder, result) == [("Observation", "m2")]
    assert clock.slept.count(60.0) == 2


# Notes

NOTES = HydrationRequest((), attachments=("text/html",), max_attachment_bytes=100)


def binary(content=HTML, kind="text/html;charset=utf-8", status=200):
    return httpx.Response(status, content=content, headers={"Content-Type": kind})


async def test_a_note_is_read_in_its_own_type(folder):
    accepts = []

    def serve(request):
        accepts.append(request.headers["Accept"])
        return binary()

    files = export(
        folder, note("d1", "Binary/b1", "text/html; charset=utf-8"), note("d2", f"{BASE}/Binary/b1")
    )
    result = await hydrate(serve, folder, files, NOTES)
    assert accepts == ["text/html"]
    (line,) = (folder.root / result.files["Binary"][0]).read_text().splitlines()
    assert json.loads(line) == {
        "resourceType": "Binary",
        "id": "b1",
        "contentType": "text/html",
        "data": base64.b64encode(HTML).decode(),
    }


def wrapped(kind="text/html"):
    value = {
        "resourceType": "Binary",
        "id": "b1",
        "contentType": kind,
        "data": base64.b64encode(HTML).decode(),
    }
    return httpx.Response(200, json=value, headers={"Content-Type": "application/fhir+json"})


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (binary(kind="application/pdf"), "wrong-type"),
        (answer(issue("", severity="error"), headers={"Content-Type": "application/fhir+json"}), "outcome"),
        (answer(issue("4130"), headers={"Content-Type": "application/fhir+json"}), "break-the-glass"),
        (binary(content=b"x" * 101), "too-large"),
        (binary(status=404), "not-found"),
        (wrapped("application/pdf"), "wrong-type"),
    ],
)
async def test_content_that_is_not_what_it_should_be_is_left_out(folder, made, reason):
    result = await hydrate(
        lambda _: made, folder, export(folder, note("d", "Binary/b1")), NOTES, profile="epic"
    )
    assert result.missing == {"Binary": {reason: 1}}
    assert result.files == {}


@pytest.mark.parametrize(("status", "reason"), [(403, "forbidden"), (404, "not-found"), (410, "deleted")])
async def test_a_refused_note_costs_that_note_only(folder, status, reason):
    class Wire(httpx.AsyncByteStream):
        """What comes over a network can be read once."""

        async def __aiter__(self):
            yield json.dumps(issue("", severity="error")).encode()

    def serve(request):
        if request.url.path.endswith("b1"):
            return httpx.Response(status, stream=Wire(), headers={"Content-Type": "application/fhir+json"})
        return binary()

    notes = export(folder, note("d1", "Binary/b1"), note("d2", "Binary/b2"))
    result = await hydrate(serve, folder, notes, NOTES)
    assert result.missing == {"Binary": {reason: 1}}
    assert result.resources == {"Binary": 1}


async def test_a_binary_that_comes_as_a_resource_is_unwrapped(folder):
    result = await hydrate(lambda _: wrapped(), folder, export(folder, note("d", "Binary/b1")), NOTES)
    assert result.resources == {"Binary": 1}


async def test_attachments_that_are_here_elsewhere_or_unwanted_are_not_asked_for(folder):
    def refuse(request):
        raise AssertionError(request.url)

    files = export(
        folder,
        note("d1", "Binary/b1", data="aGk="),
        note("d2", "https://other.example.org/Binary/b2"),
        note("d3", "Binary/b3", "application/pdf"),
    )
    result = await hydrate(refuse, folder, files, NOTES)
    assert result.missing == {"Binary": {"other-server": 1, "unwanted-type": 1}}


async def test_a_daily_limit_on_notes_waits_for_tomorrow(folder):
    clock = FakeClock()
    server = SearchServer()
    for number in range(4):
        server.script[f"Binary/b{number}"] = [binary()]
    server.script["Binary/b2"].insert(0, answer(issue("4135", severity="error"), 403))
    files = export(folder, *[note(f"d{n}", f"Binary/b{n}") for n in range(4)])
    result = await hydrate(server, folder, files, NOTES, profile="epic", clock=clock)
    assert result.resources == {"Binary": 4}
    assert max(clock.slept) > 3600
    assert server.asked()["Binary/b0"] == 1


def test_an_unknown_rule_is_refused():
    with pytest.raises(InputError, match="nonsense"):
        HydrationRequest(("nonsense",))


def test_a_reference_shows_no_id():
    line = json.dumps(panel("a", "Observation/secret")).encode()
    (found,) = find_references(line, "Observation", [REFERENCE_RULES["members"]], BASE)
    assert "secret" not in repr(found)

"""Search: paging, filters that a server must not ignore, what outcomes within bundles mean."""

import httpx
import orjson
import pytest
from connectors_doubles import BASE
from search_doubles import SearchServer, answer, bundle, client_of, issue, observation

from cohortflow.connectors.profiles.search import Meaning
from cohortflow.connectors.search import DailyLimitError, SearchClient, SearchQuery, SearchRefusedError
from cohortflow.connectors.search.bundle import parse_json
from cohortflow.errors import ExportRejectedError, TransientSourceError

pytestmark = pytest.mark.anyio

QUERY = SearchQuery("Observation", (("patient", "p1"),))
KEY = "Observation?patient=p1"
SELF = f"{BASE}/{KEY}"


@pytest.fixture
def server():
    return SearchServer(*[observation(f"o{number}", "p1") for number in range(5)])


async def search(server, query=QUERY, **options):
    async with client_of(server, **options) as client:
        return [page async for page in SearchClient(client).pages(query)]


def ids(pages):
    return [item.id for page in pages for item in page.resources]


async def test_pages_are_followed_to_the_end(server):
    pages = await search(server)
    assert ids(pages) == [f"o{number}" for number in range(5)]
    assert len(pages) == 3


async def test_short_and_empty_pages_with_a_next_link_do_not_end_a_search(server):
    server.on(
        f"{KEY}&_count=50",
        answer(bundle([observation("a", "p1")], following=f"{BASE}/x?page=2", self_url=f"{SELF}&_count=50")),
    )
    server.on("x?page=2", answer(bundle(following=f"{BASE}/x?page=3")))
    server.on("x?page=3", answer(bundle([observation("b", "p1")])))
    query = SearchQuery("Observation", (*QUERY.parameters, ("_count", "50")))
    assert ids(await search(server, query)) == ["a", "b"]


async def test_a_next_link_is_sent_as_it_came(server):
    odd = f"{BASE}?_getpages=a%2Cb&sig=%7E%C3%BC+x&sig=%7E"
    seen = []

    def last(request):
        seen.append(str(request.url))
        return answer(bundle())

    server.on(KEY, answer(bundle(following=odd, self_url=SELF)))
    server.script["/fhir?_getpages=a,b&sig=~ü x&sig=~"] = [last]
    await search(server)
    assert seen == [odd]


@pytest.mark.parametrize("following", ["https://evil.example.org/fhir/x", "http://ehr.example.org/fhir/x"])
async def test_a_next_page_on_another_origin_is_refused(server, following):
    server.on(KEY, answer(bundle(following=following, self_url=SELF)))
    with pytest.raises(ExportRejectedError, match="another server"):
        await search(server)
    assert server.requests == [KEY]


async def test_pages_in_a_circle_are_refused(server):
    page = answer(bundle(following=f"{BASE}/x?page=2"))
    server.on(KEY, answer(bundle(following=f"{BASE}/x?page=2", self_url=SELF))).on("x?page=2", page)
    with pytest.raises(ExportRejectedError, match="circle"):
        await search(server)


@pytest.mark.parametrize(
    "expired",
    [
        answer(issue("4113", severity="error"), 400),
        answer(issue("", severity="error", kind="not-found"), 410),
        answer(issue("4113", severity="error"), 200),
        answer(bundle(outcomes=[issue("4113", severity="error")]), 200),
    ],
)
async def test_an_expired_page_starts_the_search_again(server, expired):
    server.on(f"{KEY}&page=2", expired)
    pages = await search(server, profile="epic")
    assert ids(pages) == ["o0", "o1", "o0", "o1", "o2", "o3", "o4"]
    assert server.asked()[KEY] == 2


async def test_pages_that_keep_expiring_are_given_up(server):
    server.on(f"{KEY}&page=2", *[answer(issue("4113"), 400)] * 10)
    with pytest.raises(TransientSourceError, match="expire"):
        await search(server, profile="epic")


@pytest.mark.parametrize(
    ("profile", "page"),
    [
        ("generic", bundle([observation("x", "p2")], self_url=f"{BASE}/Observation")),
        ("generic", bundle([observation("x", "p2")], self_url=f"{BASE}/Observation?_count=5")),
        ("generic", bundle(outcomes=[issue("", kind="not-supported", text="ignored: patient")])),
        ("epic", bundle(self_url=SELF, outcomes=[issue("59100", text="The parameter patient was ignored")])),
        ("epic", bundle(self_url=SELF, outcomes=[issue("4122", text="A parameter was ignored.")])),
    ],
)
async def test_an_ignored_filter_fails(server, profile, page):
    server.on(KEY, answer(page))
    with pytest.raises(ExportRejectedError, match="ignores a filter") as caught:
        await search(server, profile=profile)
    assert "p1" not in str(caught.value)


@pytest.mark.parametrize("text", ["_revinclude is not supported", "Something was ignored."])
async def test_an_ignored_option_does_not(server, text):
    page = bundle([observation("a", "p1")], self_url=SELF, outcomes=[issue("4122", text=text)])
    query = SearchQuery("Observation", (*QUERY.parameters, ("_revinclude", "Provenance:target")))
    server.on(f"{KEY}&_revinclude=Provenance:target", answer(page))
    assert ids(await search(server, query, profile="epic")) == ["a"]


@pytest.mark.parametrize("link", [f"{BASE}/Observation?subject=Patient/p1", "", f"{SELF}&_count=100"])
async def test_a_self_link_may_be_written_otherwise_or_be_missing(server, link):
    server.on(KEY, answer(bundle([observation("a", "p1")], self_url=link)))
    assert ids(await search(server)) == ["a"]


async def test_a_self_link_need_not_repeat_what_was_posted():
    query = SearchQuery("Observation", (("_id", ",".join(f"{'x' * 60}{n}" for n in range(40))),))
    pages = await search(lambda _: answer(bundle(self_url=f"{BASE}/Observation")), query)
    assert ids(pages) == []


async def test_a_remark_on_an_option_may_be_repeated_on_every_page(server):
    query = SearchQuery("Observation", (*QUERY.parameters, ("_revinclude", "Provenance:target")))
    remark = issue("4122", text="Something was ignored.")
    server.on(
        f"{KEY}&_revinclude=Provenance:target",
        answer(bundle(following=f"{BASE}/x?page=2", self_url=SELF, outcomes=[remark])),
    )
    server.on("x?page=2", answer(bundle([observation("a", "p1")], outcomes=[remark])))
    assert ids(await search(server, query, profile="epic")) == ["a"]


async def test_a_filter_refused_with_400_names_the_code(server):
    server.on(KEY, answer(issue("", severity="error", kind="not-supported", text="patient p1"), 400))
    with pytest.raises(ExportRejectedError, match="not-supported") as caught:
        await search(server)
    assert "p1" not in str(caught.value)


async def test_nothing_found_is_no_error(server):
    server.on(KEY, answer(issue("4101"), 404))
    assert ids(await search(server, profile="epic")) == []
    server.on(KEY, answer(bundle(outcomes=[issue("4101")], self_url=SELF)))
    assert ids(await search(server, profile="epic")) == []


async def test_a_daily_limit_comes_after_what_the_page_holds(server):
    server.on(KEY, answer(bundle([observation("a", "p1")], self_url=SELF, outcomes=[issue("4135")])))
    found = []
    async with client_of(server, profile="epic") as client:
        with pytest.raises(DailyLimitError) as caught:  # noqa: PT012
            async for page in SearchClient(client).pages(QUERY):
                found.append(page)  # noqa: PERF401  # they are kept although it fails
    assert ids(found) == ["a"]
    assert caught.value.retry_after == 16 * 3600  # from 08:00 to midnight


@pytest.mark.parametrize(
    ("profile", "status", "outcome", "reason"),
    [
        ("generic", 403, issue("", kind="forbidden"), "forbidden"),
        ("generic", 404, {}, "not-found"),
        ("generic", 410, {}, "deleted"),
        ("generic", 400, {}, "rejected"),
        ("generic", 500, issue("", severity="error", kind="exception"), "server-error"),
        ("epic", 403, issue("4130", severity="error"), "break-the-glass"),
    ],
)
async def test_refusals_are_told_apart(server, profile, status, outcome, reason):
    server.on(KEY, answer(outcome, status))
    with pytest.raises(SearchRefusedError) as caught:
        await search(server, profile=profile)
    assert caught.value.reason == reason


async def test_entries_are_told_apart(server):
    long_id = "e" * 120
    page = bundle(
        [observation(long_id, "p1")],
        included=[{"resourceType": "Provenance", "id": "v"}],
        outcomes=[issue("4119"), issue("", severity="information", kind="informational")],
        self_url=SELF,
    )
    page["entry"].append({"fullUrl": "nothing"})
    server.on(KEY, answer(page))
    (found,) = await search(server, profile="epic")
    assert [(item.type, item.id, item.included) for item in found.resources] == [
        ("Observation", long_id, False),
        ("Provenance", "v", True),
    ]
    assert [note.meaning for note in found.notes] == [Meaning.PARTIAL]
    assert found.unusable == 1


async def test_numbers_keep_their_digits(server):
    line = (
        b'{"resourceType":"Observation","id":"a","valueQuantity":{"value":1.10},'
        b'"x":[1e3,12345678901234567890,-0.0]}'
    )
    link = b'{"relation":"self","url":"%b"}' % SELF.encode()
    body = b'{"resourceType":"Bundle","link":[%b],"entry":[{"resource": %b }]}' % (link, line)
    server.on(KEY, httpx.Response(200, content=body))
    (page,) = await search(server)
    assert page.resources[0].line == line + b"\n"


def test_fragments_survive_as_they_are():
    text = b'{"a":[0.10,1E-7,{"b":null}],"c":"\xc3\xbc"}'
    assert orjson.dumps(parse_json(text)) == text


async def test_a_long_query_is_posted():
    server = SearchServer(observation("a", "p1"), observation("b", "p1"))
    names = ",".join(["a", *("x" * 60 + str(number) for number in range(60))])
    sent = []

    def spy(request):
        sent.append((request.method, request.url.path, request.headers["Prefer"]))
        return server(request)

    pages = await search(spy, SearchQuery("Observation", (("_id", names),)))
    assert ids(pages) == ["a"]
    assert sent == [("POST", "/fhir/Observation/_search", "handling=strict")]


async def test_a_read_follows_a_merged_patient():
    server = SearchServer({"resourceType": "Patient", "id": "new"})
    server.on("Patient/old", httpx.Response(301, headers={"Location": f"{BASE}/Patient/new"}))
    async with client_of(server) as client:
        found, page = await SearchClient(client).read("Patient", "old")
    assert found.id == "new"
    assert page.server_time.isoformat() == "2026-03-02T08:00:00+00:00"


def test_a_query_shows_no_patient():
    assert "p1" not in repr(QUERY)

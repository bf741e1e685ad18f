"""What each test of a crawl begins with."""

import pytest
from crawl_doubles import GROUP, PATIENTS
from search_doubles import ReadableFolder, SearchServer, observation


@pytest.fixture
def server():
    return SearchServer(
        GROUP,
        *({"resourceType": "Patient", "id": name} for name in PATIENTS),
        *(observation(f"{name}-{number}", name) for name in PATIENTS for number in range(3)),
    )


@pytest.fixture
def folder(tmp_path):
    return ReadableFolder(tmp_path / "raw")

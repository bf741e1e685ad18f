"""A folder of the raw zone: what was written is read back whole, what is not there is an error."""

import asyncio

import pytest

from cohortflow.errors import ArtifactNotFoundError
from cohortflow.lake import RawExport, open_store
from cohortflow.model import EnvDeployment


@pytest.fixture
def folder(tmp_path):
    return RawExport(open_store(str(tmp_path / "lake"), EnvDeployment({})), "export")


async def content(folder, name):
    return b"".join([chunk async for chunk in folder.read_file(name)])


def test_a_file_of_many_chunks_is_read_back(folder):
    blocks = [bytes([number]) * (1 << 20) for number in range(12)]

    async def chunks():
        for block in blocks:
            yield block

    async def run():
        await folder.write_file("Patient/a.ndjson", chunks())
        return await content(folder, "Patient/a.ndjson")

    assert asyncio.run(run()) == b"".join(blocks)


def test_a_file_that_is_not_there_is_an_error(folder):
    with pytest.raises(ArtifactNotFoundError):
        asyncio.run(content(folder, "Patient/none.ndjson"))

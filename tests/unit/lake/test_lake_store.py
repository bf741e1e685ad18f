"""A local folder as object storage."""

import asyncio
import os
from pathlib import Path

import pytest

from cohortflow.errors import ArtifactNotFoundError, ConfigurationError, StoreUnavailableError
from cohortflow.lake import open_store, prepare_lake
from cohortflow.lake.raw import RawExport
from cohortflow.lake.store import storage_errors
from cohortflow.model import EnvDeployment

NOBODY = EnvDeployment({})


def files(store):
    return sorted(str(path.relative_to(store.uri)) for path in Path(store.uri).rglob("*") if path.is_file())


def test_a_file_is_written_read_and_replaced(store):
    assert (store.read("a/b.json"), store.size("a/b.json")) == (None, None)
    store.write("a/b.json", b"one")
    store.write("a/b.json", b"second")
    assert (store.read("a/b.json"), store.size("a/b.json")) == (b"second", 6)
    assert files(store) == ["a/b.json"]


def test_a_folder_takes_a_file_with_headers_that_it_cannot_keep(store):
    store.write("jwks.json", b"{}", headers={"Content-Type": "application/json"})
    assert store.read("jwks.json") == b"{}"


def test_create_never_replaces(store):
    assert store.create("key", b"one")
    assert not store.create("key", b"two")
    assert store.read("key") == b"one"


def test_list_is_sorted_and_ends_at_folders(store):
    for path in ("b/2", "b/1", "bc/3", "a"):
        store.write(path, b"")
    assert store.list() == ["a", "b/1", "b/2", "bc/3"]
    assert store.list("b") == ["b/1", "b/2"]
    assert store.list("none") == []


def test_delete_takes_the_folder_and_nothing_beside_it(store):
    for path in ("b/1", "b/c/2", "bc/3"):
        store.write(path, b"")
    assert store.delete("b") == 2
    assert store.list() == ["bc/3"]
    assert not (Path(store.uri) / "b").exists(), "empty folders go with their files"
    assert store.delete("b") == 0
    assert store.delete("") == 1
    assert store.list() == []


def test_delete_keeps_what_it_is_told_to(store):
    for path in ("x/state", "x/1", "x/2"):
        store.write(path, b"")
    assert store.delete("x", keep="x/state") == 2
    assert store.list() == ["x/state"]


class TestStream:
    def write(self, store, *parts, error=None):
        async def chunks():
            for part in parts:
                yield part
            if error is not None:
                raise error

        asyncio.run(store.write_stream("big", chunks()))

    def test_parts_become_one_file(self, store):
        parts = [bytes([number]) * 1_000_000 for number in range(12)]
        self.write(store, *parts)
        assert store.read("big") == b"".join(parts)

    def test_nothing_becomes_an_empty_file(self, store):
        self.write(store)
        assert store.size("big") == 0

    @pytest.mark.parametrize("megabytes", [0, 1, 20])
    def test_a_failing_stream_leaves_nothing(self, store, megabytes):
        with pytest.raises(ValueError, match="connection lost"):
            self.write(store, b"x" * (megabytes * 1_000_000), error=ValueError("connection lost"))
        assert store.read("big") is None
        assert files(store) == []

    def test_a_failing_stream_leaves_the_earlier_file(self, store):
        self.write(store, b"old")
        with pytest.raises(ValueError, match="connection lost"):
            self.write(store, b"new" * 5_000_000, error=ValueError("connection lost"))
        assert store.read("big") == b"old"
        assert files(store) == ["big"]

    def test_a_cancelled_stream_leaves_nothing(self, store):
        async def endless():
            yield b"x" * 20_000_000
            await asyncio.Event().wait()

        async def cancel():
            task = asyncio.create_task(store.write_stream("big", endless()))
            await asyncio.sleep(0.1)
            task.cancel()
            await task

        with pytest.raises(asyncio.CancelledError):
            asyncio.run(cancel())
        assert store.list() == []


class TestRawExport:
    def test_files_are_removed_but_not_the_state(self, store):
        export = RawExport(store, "server/study/2026-11-01/abc")

        async def chunks():
            yield b"{}\n"

        async def use():
            assert await export.read_state() is None
            await export.write_state(b"1")
            await export.write_file("Patient.0.ndjson", chunks())
            assert await export.file_size("Patient.0.ndjson") == 3
            await export.remove_files()
            assert await export.file_size("Patient.0.ndjson") is None
            return await export.read_state()

        assert asyncio.run(use()) == b"1"
        assert export.uri("a") == f"{store.uri}/server/study/2026-11-01/abc/a"


class TestOpen:
    def test_the_forms_of_a_local_path(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        uris = {open_store(uri, NOBODY).uri for uri in (f"{tmp_path}/x", f"file://{tmp_path}/x", "x", "./x/")}
        assert uris == {str(tmp_path / "x")}

    @pytest.mark.parametrize("uri", ["gs://bucket/x", "https://example.org/x", "abfss://c@a/x"])
    def test_another_scheme_is_refused(self, uri):
        with pytest.raises(ConfigurationError, match="is not supported") as caught:
            open_store(uri, NOBODY)
        assert caught.value.remedy == "Use s3://bucket/prefix or a local path."

    def test_credentials_are_not_in_the_repr(self):
        uri = "aws://login:secret-word@/?endpoint_url=http%3A%2F%2F127.0.0.1%3A9"
        store = open_store("s3a://bucket/x/", EnvDeployment({"AIRFLOW_CONN_COHORTFLOW_LAKE": uri}))
        assert store.uri == "s3://bucket/x"
        assert store.options["aws_secret_access_key"] == "secret-word"
        assert store.options["aws_endpoint_url"] == "http://127.0.0.1:9"
        assert "secret-word" not in repr(store)
        assert "login" not in repr(store)

    def test_a_folder_honours_conditional_writes(self, tmp_path):
        prepare_lake(str(tmp_path / "lake"), NOBODY)
        assert list((tmp_path / "lake").rglob("*")) == []


class TestErrors:
    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_without_permission(self, store):
        store.write("a", b"")
        Path(store.uri).chmod(0o500)
        with pytest.raises(StoreUnavailableError, match="refused"):
            store.write("b", b"")

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (PermissionError("403: <Signature>s3cr3t</Signature>"), StoreUnavailableError),
            (ConnectionRefusedError("s3cr3t"), StoreUnavailableError),
            (OSError("s3cr3t"), StoreUnavailableError),
            (FileNotFoundError("s3cr3t"), ArtifactNotFoundError),
        ],
        ids=lambda value: getattr(value, "__name__", type(value).__name__),
    )
    def test_clients_texts_are_not_passed_on(self, error, kind):
        with pytest.raises(kind) as caught, storage_errors("s3://lake/x"):
            raise error
        assert str(caught.value).startswith("s3://lake/x: ")
        assert caught.value.remedy
        assert "s3cr3t" not in str(caught.value)
        assert caught.value.__suppress_context__

    def test_a_lost_folder_is_reported(self, store):
        with pytest.raises((StoreUnavailableError, ArtifactNotFoundError)):
            open_store("/dev/null/lake", NOBODY)


@pytest.mark.parametrize(("private", "mode"), [(True, 0o700), (False, 0o755)])
def test_a_new_private_folder_is_its_owners_alone(tmp_path, private, mode):
    before = os.umask(0o022)
    try:
        open_store(str(tmp_path / "zone"), NOBODY, private=private)
    finally:
        os.umask(before)
    assert (tmp_path / "zone").stat().st_mode & 0o777 == mode


def test_a_folder_that_exists_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o750)
    open_store(str(tmp_path), NOBODY, private=True)
    assert tmp_path.stat().st_mode & 0o777 == 0o750


def test_a_full_disk_is_not_blamed_on_credentials():
    with pytest.raises(StoreUnavailableError, match="disk has room"), storage_errors("/lake/raw"):
        raise OSError(28, "No space left on device")
    with pytest.raises(StoreUnavailableError, match="credentials"), storage_errors("s3://lake/raw"):
        raise OSError(28, "No space left on device")

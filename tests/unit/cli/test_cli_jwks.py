"""cohortflow jwks: what a person who runs a key set sees."""

import io
import json
import stat

import httpx
import pytest

from cohortflow.cli.main import run
from cohortflow.connectors.keys import KeySet, load_signing_key
from cohortflow.connectors.keys import check as key_check

DAY = 86_400


@pytest.fixture
def keys(tmp_path, capsys):
    path = tmp_path / "keys.json"
    assert run(["jwks", "generate", str(path), "--alg", "ES384"]) == 0
    capsys.readouterr()
    return path


@pytest.fixture
def clock(monkeypatch):
    """The command's clock, which a test can move."""

    class Clock:
        now = 1_772_352_000.0

        @classmethod
        def time(cls):
            return cls.now

    monkeypatch.setattr("cohortflow.cli.jwks.time", Clock)
    return Clock


def listed(path, capsys):
    capsys.readouterr()
    assert run(["jwks", "list", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def pipe(monkeypatch, text):
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


@pytest.mark.parametrize("command", ["", "generate", "rotate", "retire", "list", "publish", "serve", "check"])
def test_every_command_explains_itself(command, capsys):
    assert run(["jwks", *command.split(), "--help"]) == 0
    assert "Usage: " in capsys.readouterr().out


class TestGenerate:
    def test_the_file_is_private_and_the_output_is_not(self, tmp_path, capsys):
        path = tmp_path / "keys.json"
        assert run(["jwks", "generate", str(path)]) == 0
        output = capsys.readouterr()
        (key,) = json.loads(path.read_text())["keys"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (key["kty"], key["alg"], key["use"], key["key_ops"]) == ("RSA", "RS384", "sig", ["sign"])
        assert f"Made key {key['kid']} (RS384)" in output.err
        assert output.out == ""
        assert key["d"] not in output.err

    def test_a_secrets_backend_gets_the_text_alone(self, capsys):
        assert run(["jwks", "generate", "-", "--alg", "ES384"]) == 0
        output = capsys.readouterr()
        key = load_signing_key(output.out, place="test")
        assert key.algorithm == "ES384"
        assert key.kid in output.err

    def test_it_overwrites_nothing(self, keys, capsys):
        before = keys.read_bytes()
        assert run(["jwks", "generate", str(keys)]) == 2
        assert "never overwritten" in capsys.readouterr().err
        assert keys.read_bytes() == before

    def test_it_keeps_out_of_git(self, tmp_path, capsys):
        (tmp_path / ".git").mkdir()
        path = tmp_path / "keys.json"
        assert run(["jwks", "generate", str(path)]) == 2
        assert "git work tree" in capsys.readouterr().err
        assert run(["jwks", "generate", str(path), "--allow-work-tree", "--alg", "ES384"]) == 0
        assert path.exists()


class TestRotate:
    def test_a_rotation_from_beginning_to_end(self, tmp_path, clock, capsys):
        keys, public = tmp_path / "keys.json", tmp_path / "jwks.json"
        run(["jwks", "generate", str(keys), "--alg", "ES384"])
        (old,) = [row["kid"] for row in listed(keys, capsys)]

        def rotate():
            assert run(["jwks", "rotate", str(keys), "--older-than", "90", "--publish", str(public)]) == 0
            return {entry["kid"] for entry in json.loads(public.read_text())["keys"]}

        # As a daily job would run it.
        assert rotate() == {old}
        clock.now += 90 * DAY
        both = rotate()
        (new,) = both - {old}
        assert {row["kid"]: row["state"] for row in listed(keys, capsys)} == {old: "signing", new: "waiting"}
        assert rotate() == both
        clock.now += DAY
        assert rotate() == both
        assert {row["kid"]: row["state"] for row in listed(keys, capsys)} == {old: "leaving", new: "signing"}
        clock.now += DAY
        assert rotate() == {new}
        assert [row["kid"] for row in listed(keys, capsys)] == [new]

    def test_it_says_what_happens_when(self, keys, capsys):
        assert run(["jwks", "rotate", str(keys)]) == 0
        said = capsys.readouterr().err
        assert "is to be published now and signs from 20" in said
        assert "leaves the published set at 20" in said
        assert run(["jwks", "rotate", str(keys)]) == 0
        assert "Nothing was changed: key" in capsys.readouterr().err

    def test_a_leaked_key_is_gone_at_once(self, keys, capsys):
        leaked = json.loads(keys.read_text())["keys"][0]
        assert run(["jwks", "rotate", str(keys), "--overlap", "0"]) == 0
        said = capsys.readouterr().err
        assert f"Removed key {leaked['kid']}" in said
        assert "refuse the new key for so long" in said
        assert leaked["d"] not in keys.read_text()

    def test_a_secrets_backend_is_read_and_written_by_pipes(self, keys, monkeypatch, capsys):
        pipe(monkeypatch, keys.read_text())
        assert run(["jwks", "rotate", "-"]) == 0
        rotated = capsys.readouterr().out
        assert len(json.loads(rotated)["keys"]) == 2
        assert len(json.loads(keys.read_text())["keys"]) == 1
        pipe(monkeypatch, rotated)
        assert run(["jwks", "rotate", "-"]) == 0
        assert json.loads(capsys.readouterr().out) == json.loads(rotated)

    def test_a_public_set_is_refused(self, keys, tmp_path, capsys):
        public = tmp_path / "jwks.json"
        run(["jwks", "publish", str(keys), str(public)])
        assert run(["jwks", "rotate", str(public)]) == 2
        assert "no private key" in capsys.readouterr().err


class TestRetire:
    def test_the_signing_key_stays(self, keys, capsys):
        (row,) = listed(keys, capsys)
        assert run(["jwks", "retire", str(keys), row["kid"], "--now"]) == 2
        assert "cohortflow jwks rotate" in capsys.readouterr().err
        assert len(listed(keys, capsys)) == 1

    def test_a_waiting_key_can_be_withdrawn(self, keys, monkeypatch, capsys):
        run(["jwks", "rotate", str(keys)])
        waiting = next(row["kid"] for row in listed(keys, capsys) if row["state"] == "waiting")
        assert run(["jwks", "retire", str(keys), waiting]) == 2
        pipe(monkeypatch, keys.read_text())
        capsys.readouterr()
        assert run(["jwks", "retire", "-", waiting, "--now"]) == 0
        assert waiting not in capsys.readouterr().out
        assert run(["jwks", "retire", str(keys), waiting, "--now"]) == 0
        assert [row["state"] for row in listed(keys, capsys)] == ["signing"]


class TestList:
    def test_a_line_per_key(self, keys, capsys):
        run(["jwks", "rotate", str(keys)])
        capsys.readouterr()
        assert run(["jwks", "list", str(keys)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert ["waiting: published" in lines[0], "signing since" in lines[1]] == [True, True]
        assert [len(line.split()[0]) for line in lines] == [43, 43]

    def test_a_file_that_others_can_read_is_told(self, keys, capsys):
        run(["jwks", "list", str(keys)])
        assert "warning" not in capsys.readouterr().err
        keys.chmod(0o644)
        run(["jwks", "list", str(keys)])
        assert "others can read this file" in capsys.readouterr().err


class TestPublish:
    def test_the_file_holds_the_public_half(self, keys, tmp_path, capsys):
        run(["jwks", "rotate", str(keys)])
        public = tmp_path / "jwks.json"
        assert run(["jwks", "publish", str(keys), str(public)]) == 0
        said = " ".join(capsys.readouterr().err.split())
        private = json.loads(keys.read_text())["keys"]
        entries = json.loads(public.read_text())["keys"]
        assert {entry["kid"] for entry in entries} == {key["kid"] for key in private}
        assert not any(key["d"] in public.read_text() for key in private)
        assert stat.S_IMODE(public.stat().st_mode) == 0o644
        assert "Published 2 public keys" in said
        assert "Publish again after 20" in said

    @pytest.mark.parametrize("target", ["s3://bucket", "s3://bucket/folder/", "https://example.org/x"])
    def test_other_addresses_are_refused(self, keys, target, capsys):
        assert run(["jwks", "publish", str(keys), target]) == 2
        assert "s3://bucket/" in capsys.readouterr().err


class TestCheck:
    @pytest.fixture
    def world(self, keys, monkeypatch):
        """A published set and a FHIR server behind the same network; returns what to change in it."""
        world = {"set": KeySet.parse(keys.read_text(), "test").to_public(0), "alg": ["RS384", "ES384"]}

        def answer(request):
            if request.url.host == "keys.example.org":
                return httpx.Response(200, json=world["set"], headers={"Cache-Control": "max-age=60"})
            if request.url.path.endswith("smart-configuration"):
                return httpx.Response(
                    200, json={"token_endpoint_auth_signing_alg_values_supported": world["alg"]}
                )
            return httpx.Response(404)

        plain = httpx.AsyncClient

        def client(**options):
            return plain(**options | {"transport": httpx.MockTransport(answer)})

        monkeypatch.setattr(key_check.httpx, "AsyncClient", client)
        connection = {
            "conn_type": "fhir",
            "host": "https://ehr.example.org/fhir",
            "login": "app",
            "extra": {
                "private_key_file": str(keys),
                "jwks_url": "https://keys.example.org/jwks.json",
            },
        }
        monkeypatch.setenv("AIRFLOW_CONN_EHR", json.dumps(connection))
        world["connection"] = connection
        return world

    def test_all_is_well(self, world, capsys):
        assert run(["jwks", "check", "ehr"]) == 0
        output = capsys.readouterr().out
        assert "which signs, is published" in output
        assert "The server accepts ES384" in output

    def test_a_key_that_is_not_published_fails(self, world, capsys):
        world["set"] = KeySet.generate("ES384", 0).to_public(0)
        assert run(["jwks", "check", "ehr"]) == 1
        output = capsys.readouterr().out
        assert "error" in output
        assert "-> Publish the set again" in output

    def test_an_algorithm_that_the_server_lacks_fails(self, world, capsys):
        world["alg"] = ["RS384"]
        assert run(["jwks", "check", "ehr", "--json"]) == 1
        findings = json.loads(capsys.readouterr().out)
        assert [f["severity"] for f in findings if "RS384" in f["text"]] == ["error"]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"extra": {"auth": "none"}}, "signs nothing"),
            ({"extra": {"jwks_url": ""}}, "No address of the published key set"),
        ],
    )
    def test_what_cannot_be_checked(self, world, monkeypatch, capsys, changes, message):
        connection = world["connection"]
        extra = {**connection["extra"], **changes["extra"]}
        monkeypatch.setenv("AIRFLOW_CONN_EHR", json.dumps({**connection, "extra": extra}))
        assert run(["jwks", "check", "ehr"]) == 2
        assert message in capsys.readouterr().err

    def test_an_unknown_connection(self, capsys):
        assert run(["jwks", "check", "nobody"]) == 2
        assert "AIRFLOW_CONN_NOBODY" in capsys.readouterr().err

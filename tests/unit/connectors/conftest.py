import pytest
from connectors_doubles import BASE, FILES, STATUS, Ehr, FakeClock, FolderSink, manifest, ndjson, reply
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def sink(tmp_path):
    return FolderSink(tmp_path / "raw")


@pytest.fixture
def ehr():
    """A server whose export of two Patients and one Condition is ready at the second poll."""
    return (
        Ehr()
        .on("GET", f"{BASE}/$export", reply(202, headers={"Content-Location": STATUS}))
        .on(
            "GET",
            STATUS,
            reply(202, headers={"X-Progress": "50% done", "Retry-After": "7"}),
            reply(
                body=manifest(
                    [
                        ("Patient", f"{FILES}/p1", {"count": 2}),
                        ("Condition", f"{FILES}/c1", {"count": 1}),
                    ]
                )
            ),
        )
        .on("GET", f"{FILES}/p1", reply(body=ndjson("Patient", "a", "b")))
        .on("GET", f"{FILES}/c1", reply(body=ndjson("Condition", "c")))
        .on("DELETE", STATUS, reply(202))
    )


def _pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


@pytest.fixture(scope="session")
def ec_key():
    return ec.generate_private_key(ec.SECP384R1())


@pytest.fixture(scope="session")
def rsa_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="session")
def ec_pem(ec_key):
    return _pem(ec_key)


@pytest.fixture(scope="session")
def rsa_pem(rsa_key):
    return _pem(rsa_key)

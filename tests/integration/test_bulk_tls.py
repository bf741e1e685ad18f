"""Certificates: what is trusted, and what is said when one is not."""

import asyncio
import ipaddress
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cohortflow.connectors import BulkExport, ExportRequest, FhirSource, connect
from cohortflow.errors import ConfigurationError
from cohortflow.model import Connection

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

ANSWER = b"HTTP/1.1 202 Accepted\r\nContent-Location: /jobs/1\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate of 127.0.0.1 and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hospital")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(built.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
async def base_url(certificate):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def kick_off(base_url, **extra):
    source = FhirSource.from_connection(Connection("tls", "fhir", base_url, extra=extra))
    async with connect(source) as client:
        return await BulkExport(client).kick_off(ExportRequest())


async def test_unknown_certificate_is_refused_at_once_with_a_remedy(base_url):
    with pytest.raises(ConfigurationError, match="not trusted") as caught:
        await kick_off(base_url)
    assert "ca_bundle" in caught.value.remedy


async def test_certificate_of_the_bundle_is_trusted(base_url, certificate):
    assert await kick_off(base_url, ca_bundle=str(certificate[0])) == f"{base_url}/jobs/1"


async def test_checks_can_be_switched_off_on_this_machine(base_url):
    assert await kick_off(base_url, verify=False) == f"{base_url}/jobs/1"

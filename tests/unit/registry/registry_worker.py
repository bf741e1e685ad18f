"""One of several processes that want the same lease: run as a program by the tests."""

import os
import sys
import time
from pathlib import Path

from sqlalchemy.engine import make_url

from cohortflow.registry import LeaseOwner, Registry, Subject, name_machine

SUBJECT = Subject.of("https://ehr.example.org/fhir", "client", "group", "g")


def owner_of(name: str) -> LeaseOwner:
    return LeaseOwner(name, f"export of {name}", "study", name, name_machine(), os.getpid())


def take_turns(registry: Registry, name: str, folder: Path, turns: int) -> None:
    """Take the lease some times; fail if another process is inside at the same time."""
    inside = folder / "inside"
    for _ in range(turns):
        while (lease := registry.acquire(SUBJECT, owner_of(name), 60)) is None:
            time.sleep(0.02)
        inside.touch(exist_ok=False)
        with (folder / "turns").open("a") as file:
            file.write(f"{name}\n")
        time.sleep(0.01)
        inside.unlink()
        assert registry.release(SUBJECT.key, lease.token)


def hold(registry: Registry, name: str, folder: Path) -> None:
    """Take the lease and sit on it until killed."""
    assert registry.acquire(SUBJECT, owner_of(name), 3600) is not None
    (folder / "held").touch()
    time.sleep(60)


if __name__ == "__main__":
    action, url, name, place = sys.argv[1:]
    opened = Registry.at(make_url(url))
    if action == "hold":
        hold(opened, name, Path(place))
    else:
        take_turns(opened, name, Path(place), 8)

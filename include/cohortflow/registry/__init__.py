"""What runs remember of sources: exports, watermarks, who exports what now, when to ask again."""

from cohortflow.registry.location import REGISTRY_CONNECTION, STATE_VARIABLE, locate_registry, state_folder
from cohortflow.registry.process import name_machine
from cohortflow.registry.records import Endpoint, ExportRecord, Lease, LeaseOwner, Subject
from cohortflow.registry.store import Registry, migrate_registry, open_registry

__all__ = [
    "REGISTRY_CONNECTION",
    "STATE_VARIABLE",
    "Endpoint",
    "ExportRecord",
    "Lease",
    "LeaseOwner",
    "Registry",
    "Subject",
    "locate_registry",
    "migrate_registry",
    "name_machine",
    "open_registry",
    "state_folder",
]

"""A population is the same on every machine and in every version that does not mean to change it.

If the model was changed on purpose, write the new digests: `UPDATE_GOLDEN=1 pytest <this file>`.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from cohortflow.synthetic import generate

GOLDEN = Path(__file__).parents[2] / "golden" / "synthetic_digests.json"


def test_a_known_population_keeps_its_bytes(tmp_path):
    generate(tmp_path / "data", patients=40, seed=1)
    digests = {
        path.relative_to(tmp_path / "data").as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((tmp_path / "data").rglob("*"))
        if path.is_file()
    }
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")
    assert digests == json.loads(GOLDEN.read_text(encoding="utf-8"))

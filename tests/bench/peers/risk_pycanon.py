"""Measure tables with pycanon: runs in an environment of its own, reads JSON, writes JSON."""

from __future__ import annotations

import json
import sys

import pandas as pd
import pycanon
from pycanon import anonymity


def main() -> None:
    """Read tables from standard input and write their measures."""
    measures = []
    for table in json.load(sys.stdin):
        data = pd.DataFrame(table["columns"])
        quasi = table["quasi_identifiers"]
        sensitive = {
            name: {
                "l": int(anonymity.l_diversity(data, quasi, [name])),
                "entropy_l": int(anonymity.entropy_l_diversity(data, quasi, [name])),
                "t": float(anonymity.t_closeness(data, quasi, [name])),
            }
            for name in table["sensitive"]
        }
        k = int(anonymity.k_anonymity(data, quasi))
        measures.append({"table": table["name"], "k": k, "sensitive": sensitive})
    json.dump({"pycanon": pycanon.__version__, "measures": measures}, sys.stdout)


if __name__ == "__main__":
    main()

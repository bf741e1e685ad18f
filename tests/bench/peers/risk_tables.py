"""Tables in the style of public ones, made from a seed, for the comparison of risk measures.

They have no missing values: pycanon leaves such rows out, Cohortflow counts them as a value of their own.
"""

from __future__ import annotations

import dataclasses
import random

__all__ = ["TABLES", "Table"]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table with what others may know and what they must not learn.

    Attributes:
        name: For messages.
        columns: Values by column.
        quasi_identifiers: Columns that others may know.
        sensitive: Columns that they must not learn.
    """

    name: str
    columns: dict[str, list[str] | list[int] | list[float]]
    quasi_identifiers: tuple[str, ...]
    sensitive: tuple[str, ...]


def make_census(rows: int, seed: int) -> Table:
    """Make a table in the style of the Adult census extract."""
    draw = random.Random(seed)
    ages = [f"{10 * draw.choices(range(2, 8), [5, 9, 8, 6, 4, 1])[0]}s" for _ in range(rows)]
    return Table(
        f"census of {rows}",
        {
            "age": ages,
            "sex": draw.choices(["Female", "Male"], [1, 2], k=rows),
            "race": draw.choices(["White", "Black", "Asian-Pac-Islander", "Other"], [85, 10, 4, 1], k=rows),
            "education": draw.choices(
                ["HS-grad", "Some-college", "Bachelors", "Doctorate"], [9, 7, 5, 1], k=rows
            ),
            "salary": draw.choices(["<=50K", ">50K"], [3, 1], k=rows),
            "occupation": draw.choices(
                ["Sales", "Craft", "Exec", "Tech", "Farming"], [6, 5, 4, 3, 1], k=rows
            ),
            "hours": [draw.choice([20, 35, 40, 40, 40, 45, 50, 60]) for _ in range(rows)],
        },
        ("age", "sex", "race", "education"),
        ("salary", "occupation", "hours"),
    )


def make_discharges(rows: int, seed: int) -> Table:
    """Make a table in the style of a hospital discharge data set."""
    draw = random.Random(seed)
    zips = draw.choices(["021", "022", "036", "059"], [50, 30, 15, 5], k=rows)
    return Table(
        f"discharges of {rows}",
        {
            "sex": draw.choices(["female", "male"], k=rows),
            "birth_year": [draw.randrange(1930, 2010, 10) for _ in range(rows)],
            "zip3": zips,
            "diagnosis": draw.choices(["E11", "I10", "J45", "C50", "B20"], [30, 40, 20, 8, 2], k=rows),
            "stay_days": [min(30, int(draw.expovariate(0.25))) for _ in range(rows)],
            "charges": [round(draw.lognormvariate(8, 0.5), -2) for _ in range(rows)],
        },
        ("sex", "birth_year", "zip3"),
        ("diagnosis", "stay_days", "charges"),
    )


def make_clinic(rows: int, seed: int) -> Table:
    """Make a table with few classes, all of them large."""
    draw = random.Random(seed)
    sexes = draw.choices(["female", "male"], k=rows)
    return Table(
        f"clinic of {rows}",
        {
            "sex": sexes,
            "insurance": draw.choices(["public", "private"], [3, 2], k=rows),
            "outcome": [
                "recovered" if draw.random() < (0.8 if sex == "male" else 0.6) else "ill" for sex in sexes
            ],
            "score": [draw.randint(0, 10) + (sex == "male") for sex in sexes],
        },
        ("sex", "insurance"),
        ("outcome", "score"),
    )


TABLES = (
    make_census(400, 1),
    make_census(3000, 2),
    make_discharges(250, 3),
    make_discharges(2000, 4),
    make_clinic(300, 5),
    make_clinic(2000, 6),
)

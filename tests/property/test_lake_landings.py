"""Whatever lands in whatever order: each interval holds exactly the rows of its last landing."""

import tempfile
from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from cohortflow.errors import StaleWriteError
from cohortflow.lake import Landing, land_dataset, open_store
from cohortflow.model import EnvDeployment

LANDINGS = st.lists(
    st.tuples(
        st.sampled_from(["2026-11-01", "2026-11-02", "2026-11-03T060000"]),
        st.integers(0, 3),  # hours: the transaction time
        st.lists(st.integers(0, 5), max_size=4),
        st.booleans(),  # partitioned rows come with a category
    ),
    min_size=1,
    max_size=7,
)


@settings(max_examples=25)
@given(landings=LANDINGS)
def test_each_interval_holds_its_last_landing(landings):
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder, EnvDeployment({}))
        expected, times = {}, {}
        for interval, hours, ids, partitioned in landings:
            content = f"{sorted(ids)}"
            landing = Landing(
                name="condition",
                path="condition",
                application="cohortflow/study",
                interval=interval,
                transaction_time=datetime(2026, 11, 1, tzinfo=UTC) + timedelta(hours=hours),
                content=content,
                partition_by=("category",),
            )
            frame = pl.LazyFrame(
                {"id": ids, "category": ["lab" if partitioned else "vital"] * len(ids)},
                schema={"id": pl.Int64, "category": pl.String},
            )
            try:
                outcome = land_dataset(frame, landing, store)
            except StaleWriteError:
                assert hours < times[interval]
                continue
            assert hours >= times.get(interval, 0)
            repeated = expected.get(interval) == sorted(ids) and times[interval] == hours
            assert outcome.committed == (not repeated)
            assert outcome.dataset.rows == len(ids)
            times[interval] = hours
            expected[interval] = sorted(ids)
        landed = pl.read_delta(store.child("condition"))
        found = {
            interval: sorted(landed.filter(pl.col("data_interval") == interval)["id"].to_list())
            for interval in expected
        }
        assert found == expected
        assert landed.height == sum(map(len, expected.values()))

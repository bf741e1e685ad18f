"""The runner: nothing of a patient's record leaves by an error, and intermediates never stay."""

import logging
import pickle
import traceback
from types import MappingProxyType

import polars as pl
import pytest

from cohortflow.errors import LakeError, StoreUnavailableError, ViewError
from cohortflow.model import DatasetRef
from cohortflow.workflow import steps as steps_module
from cohortflow.workflow.plan import Step, StepKind
from cohortflow.workflow.run import StepResult
from cohortflow.workflow.runner import StepFailedError, guard, record_step, run_plan, run_step

MARKER = "Wilhelmina-Testperson"


def everything_shown(error):
    """Return all texts by which an error can leave the process."""
    frames = traceback.TracebackException.from_exception(error, capture_locals=False)
    chain = "".join(frames.format(chain=True))
    return "\n".join(
        [str(error), repr(error), chain, repr(error.__cause__), repr(error.__context__), str(error.args)]
    )


def cast_in_polars():
    pl.LazyFrame({"name": [MARKER]}).select(pl.col("name").cast(pl.Int64)).collect()


def parse_in_polars():
    pl.LazyFrame({"name": [MARKER]}).select(pl.col("name").str.to_date("%Y", strict=True)).collect()


def raise_bare():
    raise RuntimeError(MARKER)


def raise_key():
    {}[MARKER]


def raise_chained():
    try:
        cast_in_polars()
    except pl.exceptions.PolarsError as error:
        raise ValueError("no digits") from error


def raise_known_from_unknown():
    try:
        cast_in_polars()
    except pl.exceptions.PolarsError as error:
        raise LakeError("The dataset could not be written.") from error


def raise_known_while_handling():
    try:
        raise_bare()
    except RuntimeError:
        raise LakeError("The dataset could not be written.")  # noqa: B904  # what must not matter


def panic():
    # What a panic in Rust code looks like to Python: not an Exception.
    raise pl.exceptions.PanicException(f"called unwrap on {MARKER}")


class TestGuard:
    def test_passes_results(self):
        assert guard("a", lambda: 3) == 3

    @pytest.mark.parametrize(
        "work",
        [cast_in_polars, parse_in_polars, raise_bare, raise_key, raise_chained, panic],
        ids=lambda work: work.__name__,
    )
    def test_withholds_what_libraries_say(self, work):
        with pytest.raises(StepFailedError) as caught:
            guard("redact.patient", work)
        assert MARKER not in everything_shown(caught.value)
        assert "redact.patient failed with " in str(caught.value)
        assert f"{work.__name__} (" in caught.value.place or "polars" in caught.value.place
        assert __file__ in caught.value.place or "polars" in caught.value.place
        assert MARKER not in everything_shown(pickle.loads(pickle.dumps(caught.value)))

    def test_the_libraries_errors_do_quote_values(self):
        """Without this the tests above would prove nothing."""
        for work in (cast_in_polars, parse_in_polars, raise_bare, raise_chained):
            with pytest.raises(Exception) as caught:  # any
                work()
            assert MARKER in everything_shown(caught.value)

    @pytest.mark.parametrize("work", [raise_known_from_unknown, raise_known_while_handling])
    def test_keeps_known_errors_without_their_causes(self, work):
        with pytest.raises(LakeError, match=r"The dataset could not be written\.") as caught:
            guard("land.patient", work)
        assert MARKER not in everything_shown(caught.value)

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_an_interrupt_passes(self, kind):
        def work():
            raise kind

        with pytest.raises(kind):
            guard("a", work)


class TestRecordStep:
    def test_logs_counts_and_keeps_the_result(self, open_run, caplog):
        run, table = open_run(), DatasetRef("patient", "u", 12345, "abc")
        with caplog.at_level(logging.INFO, "cohortflow.workflow.runner"):
            record_step(run, Step(StepKind.MAP, "patient"), lambda: StepResult((table,)))
        assert "map.patient done in" in caplog.text
        assert "patient 12,345 rows" in caplog.text
        assert list(run.load_results()) == ["map.patient"]

    def test_a_failing_store_is_named_and_not_withheld(self, open_run):
        def work():
            raise ConnectionRefusedError("PUT http://127.0.0.1/lake?X-Amz-Signature=s3cr3t")

        with pytest.raises(StoreUnavailableError, match=r"cannot be reached \(ConnectionRefusedError\)") as e:
            record_step(open_run(), Step(StepKind.MAP, "patient"), work)
        assert "cohortflow_lake" in e.value.remedy
        assert "s3cr3t" not in everything_shown(e.value)

    def test_a_failed_step_leaves_no_result(self, open_run):
        run = open_run()
        with pytest.raises(StepFailedError):
            record_step(run, Step(StepKind.MAP, "patient"), raise_bare)
        assert run.load_results() == {}


class TestRunPlan:
    @pytest.fixture
    def fake_steps(self, monkeypatch):
        """Replaces every kernel but the clean-up; each leaves a file in the work zone."""

        def install(fail_at=None, error=None):
            done = []

            def work(kind):
                def step(run, view):
                    run.work.write(f"{kind}/{view}.parquet", MARKER.encode())
                    done.append(f"{kind}.{view}".rstrip("."))
                    if kind == fail_at:
                        raise error
                    return StepResult()

                return step

            fakes = {kind: work(kind) for kind in StepKind} | {
                StepKind.CLEAN: steps_module.STEPS[StepKind.CLEAN]
            }
            monkeypatch.setattr(steps_module, "STEPS", MappingProxyType(fakes))
            return done

        return install

    def test_carries_out_all_steps_in_order_and_cleans_up(self, open_run, fake_steps):
        run, done, told = open_run(), fake_steps(), []
        results = run_plan(run, on_step=lambda step, result: told.append((step.id, result is None)))
        ids = [step.id for step in run.plan.steps]
        assert list(results) == ids
        assert done == ids[:-1]
        assert told == [(step_id, before) for step_id in ids[:-1] for before in (True, False)]
        assert run.work.list() == []
        assert results["clean"].facts["removed_files"] == 2 * len(done)

    @pytest.mark.parametrize(
        ("error", "shown"),
        [
            (ViewError("a view is wrong"), ViewError),
            (RuntimeError(MARKER), StepFailedError),
            (KeyboardInterrupt(), KeyboardInterrupt),
        ],
        ids=["known", "unknown", "interrupt"],
    )
    def test_cleans_up_after_a_failure(self, open_run, fake_steps, error, shown):
        run, done = open_run(), fake_steps(StepKind.REDACT, error)
        with pytest.raises(shown) as caught:
            run_plan(run)
        assert done[-1] == "redact.cohort"
        assert not any(step.startswith("land") for step in done)
        assert run.work.list() == []
        assert MARKER not in everything_shown(caught.value)

    def test_the_first_failure_is_reported_and_files_that_stay_are_logged(
        self, open_run, fake_steps, monkeypatch, caplog
    ):
        run, _ = open_run(), fake_steps(StepKind.MAP, ViewError("the cause"))

        def fail(_run, _view):
            raise StoreUnavailableError("The object store cannot be reached.", place="s3://lake/work")

        monkeypatch.setattr(
            steps_module, "STEPS", MappingProxyType({**steps_module.STEPS, StepKind.CLEAN: fail})
        )
        with pytest.raises(ViewError, match="the cause"):
            run_plan(run)
        assert "s3://lake/work: The object store cannot be reached." in caplog.text

    def test_a_retry_of_one_step_finds_what_the_earlier_left(self, open_run, fake_steps):
        fake_steps()
        run_step(open_run(), Step(StepKind.TRANSFORM))
        assert open_run().work.list() == ["_results/transform.json", "transform/.parquet"]
        run_step(open_run(), Step(StepKind.CLEAN))
        assert open_run().work.list() == []

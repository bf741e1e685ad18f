"""The outbox keeps everything and forgets only what was delivered."""

from datetime import UTC, datetime, timedelta

import pytest

from cohortflow.lake import Outbox, open_store
from cohortflow.model import EnvDeployment

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def outbox(tmp_path):
    return Outbox(open_store(str(tmp_path / "audit"), EnvDeployment({})))


def test_entries_are_delivered_in_order_and_stay_in_the_log(outbox):
    for number in (2, 0, 1):
        outbox.add("study", f"id{number}", b"%d" % number, NOW + timedelta(seconds=number), deliver=True)
    parcels = list(outbox.pending())
    assert [parcel.id for parcel in parcels] == ["id0", "id1", "id2"]
    outbox.settle(parcels[0])
    assert [parcel.content for parcel in outbox.pending()] == [b"1", b"2"]
    assert sorted(outbox.entries("study")) == [b"0", b"1", b"2"]


def test_the_same_entry_is_kept_once(outbox):
    assert outbox.add("study", "id", b"first", NOW, deliver=True)
    assert not outbox.add("study", "id", b"again", NOW + timedelta(hours=1), deliver=True)
    assert [parcel.content for parcel in outbox.pending()] == [b"first"]
    assert list(outbox.entries()) == [b"first"]


def test_a_crash_before_the_log_delivers_twice_rather_than_never(outbox, monkeypatch):
    def fail(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(outbox.store), "create", fail)
        with pytest.raises(KeyboardInterrupt):
            outbox.add("study", "id", b"entry", NOW, deliver=True)
    assert outbox.count_pending() == 1
    assert outbox.add("study", "id", b"entry", NOW + timedelta(seconds=1), deliver=True)
    assert {parcel.id for parcel in outbox.pending()} == {"id"}
    assert list(outbox.entries()) == [b"entry"]


def test_without_a_receiver_nothing_waits(outbox):
    assert outbox.add("study", "id", b"entry", NOW, deliver=False)
    assert outbox.count_pending() == 0

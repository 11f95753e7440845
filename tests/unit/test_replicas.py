from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid4

from authz_service.store.changes import Revision, Stamp
from authz_service.store.replicas import REPORT_WITHIN, Replica, Watch

EPOCH = UUID(int=1)


def a_replica(**changes) -> Replica:
    plain = Replica(uuid4(), "host:1", Stamp(Revision(7), EPOCH), beat=1, max_staleness=5.0, connections=12)
    return replace(plain, **changes)


def test_a_replica_reached_what_it_applied_and_all_before():
    row = a_replica()
    assert row.reached(Stamp(Revision(7), EPOCH))
    assert row.reached(Stamp(Revision(6), EPOCH))
    assert not row.reached(Stamp(Revision(8), EPOCH))


def test_a_replica_that_has_not_reported_yet_reached_nothing():
    assert not a_replica(stamp=None).reached(Stamp(Revision(0), EPOCH))


def test_a_revision_of_another_history_is_not_reached():
    assert not a_replica().reached(Stamp(Revision(1), UUID(int=2)))


def test_a_row_that_stands_still_longer_than_its_grace_is_silent():
    watch, row = Watch(), a_replica()
    assert watch.silent([row], 100.0, 100.1) == []
    assert watch.silent([row], 100.1 + 5.0 + REPORT_WITHIN, 106.0) == []
    assert watch.silent([row], 100.2 + 5.0 + REPORT_WITHIN, 106.0) == [row]


def test_the_time_that_an_answer_took_does_not_count_as_silence():
    watch, row = Watch(), a_replica()
    watch.silent([row], 100.0, 109.0)
    assert watch.silent([row], 114.4, 114.5) == []


def test_a_row_that_beats_is_not_silent():
    watch, row = Watch(), a_replica()
    for second in range(20):
        assert watch.silent([replace(row, beat=second)], float(second), second + 0.1) == []


def test_a_row_that_went_and_came_back_is_watched_anew():
    watch, row = Watch(), a_replica()
    watch.silent([row], 100.0, 100.1)
    watch.silent([], 103.0, 103.1)
    assert watch.silent([row], 106.0, 106.1) == []
    assert watch.silent([row], 113.0, 113.1) == [row]


def test_each_replica_is_judged_by_its_own_staleness():
    watch = Watch()
    patient, quick = a_replica(max_staleness=60.0), a_replica(max_staleness=2.0)
    watch.silent([patient, quick], 0.0, 0.1)
    assert watch.silent([patient, quick], 5.0, 5.1) == [quick]

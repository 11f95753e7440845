"""The service with one protection taken away: the suite has to notice each of them.

Here, and nowhere in the service: a product with a switch that makes it unsafe is unsafe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import func, insert, select

from authz_service.cache import follower, journal, presence
from authz_service.store import changes
from authz_service.store.database import ring_after_commit
from authz_service.store.tables import authz_now, change_log, revision

_FOREVER: Final = float("inf")


def sequence_for_counter() -> None:
    """Revisions come from a sequence: a later number may be visible first, and nobody looks behind it again."""

    async def append(conn: Any, rows: Any, *, epoch: Any) -> changes.Stamp:
        assert epoch is None
        query = select(func.nextval("mutant_revision"), revision.c.epoch, authz_now)
        number, found, at = (await conn.execute(query)).one()
        previous = b""
        for seq, (kind, key) in enumerate(rows):
            hashed = changes.change_hash(previous, number, seq, kind, key, at)
            values = {"rev": number, "seq": seq, "kind": kind.value, "key": key}
            await conn.execute(insert(change_log).values(**values, hash=hashed, prev_hash=previous, at=at))
            previous = hashed
        ring_after_commit(conn)
        return changes.Stamp(changes.Revision(number), found)

    changes._append = append


SEQUENCE_SQL: Final = (
    "create sequence mutant_revision start with 1000",
    "alter table revision rename to revision_row",
    """
    create view revision as
    select r.id, greatest(r.rev, c.rev) as rev, r.epoch, coalesce(c.hash, r.hash) as hash, r.began
    from revision_row r left join lateral
      (select rev, hash from change_log where rev >= 1000 order by rev desc, seq desc limit 1) c on true
    """,
)
"""What the database of that mutant looks like: the head is the greatest number that is visible."""


def no_staleness_check() -> None:
    """A replica that hears nothing goes on deciding."""
    follower.Follower.deadline = property(lambda _: _FOREVER, lambda *_: None)


def no_fill_guard() -> None:
    """A load that began before a change puts back what the change dropped."""
    journal.Journal.touched_after = lambda *_: False


def listen_only() -> None:
    """The bell is taken for the letter: no looking by the clock, and fresh is who holds a connection."""

    async def pause(self: Any) -> None:
        await self._bell.wait()

    follower.Follower._pause = pause
    follower.Follower.deadline = property(lambda _: _FOREVER, lambda *_: None)


def no_rewind_check() -> None:
    """Whatever history there is, it is taken for the one that was followed."""

    def apply(self: Any, poll: Any, sent_at: float) -> bool:
        if self.applied is None or poll.head.epoch != self.applied.epoch:
            return self._restart(poll)
        newer = [change for change in poll.changes if change.revision > self.applied.revision]
        self._journal.apply(newer)
        self.applied = poll.head
        self._tip = poll.tip
        return True

    follower.Follower._apply = apply


def unreported() -> None:
    """Replicas keep it to themselves that they are there: a revoke that waits for all of them waits for nobody."""

    async def nothing(*_: Any, **__: Any) -> None:
        return None

    presence.Presence.enter = nothing
    presence.Presence.report = nothing


MUTANTS: Final[dict[str, Callable[[], None]]] = {
    "sequence-for-counter": sequence_for_counter,
    "no-staleness-check": no_staleness_check,
    "no-fill-guard": no_fill_guard,
    "listen-only": listen_only,
    "no-rewind-check": no_rewind_check,
    "unreported": unreported,
}


async def prepare(connection: Any, mutant: str) -> None:
    """Change the database as the mutant needs it."""
    if mutant == "sequence-for-counter":
        for statement in SEQUENCE_SQL:
            await connection.execute(statement)

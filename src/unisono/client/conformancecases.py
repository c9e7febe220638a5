"""
The cases of the conformance kit: what a participant is asked, and what would be right.

:mod:`unisono.client.conformance` runs them. The contract is docs/reference/transactions-api.md, the cases are
those of docs/guide/participants.md.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import SplitResult

from unisono.client.calling import (
    DONE,
    Answered,
    Participant,
    Wrong,
    in_words,
    must_be_done,
    must_be_no,
    must_not_be_done,
    request,
)

AT_ONCE = 8  # calls that overlap
GID_MAX, BRANCH_MAX = 100, 40  # characters
REPLY_MAX = 64 * 1024  # bytes; what is over it never gets to the initiator
ROUNDS = 8  # of a forward call against its undo, since who comes first is chance


class NotConnected(Exception):
    """Nothing answers at the URL, or the participant can't be tried with this payload."""


class Kit:
    """The cases; each raises Wrong when the participant does wrong."""

    def __init__(self, participant: Participant, state_url: SplitResult | None, timeout: float) -> None:
        self._to = participant
        self._state_url = state_url
        self._gids: list[str] = []  # of the present case
        self._timeout = timeout
        self._forward, self._finish, self._undo = participant.forward, participant.finish, participant.undo

    def cases(self) -> Mapping[str, Callable[[], None]]:
        """All cases for the participant's mode, by their names."""
        always = {
            "null": self.null,
            "suspended": self.suspended,
            "duplicate": self.duplicate,
            "undone": self.undone,
            "undone twice": self.undone_twice,
            "forward after undo": self.forward_after_undo,
            "overlapping duplicates": self.overlapping_duplicates,
            "overlapping undo": self.overlapping_undo,
            "overlapping undos": self.overlapping_undos,
            "late coordinator": self.late_coordinator,
            "two branches": self.two_branches,
            "alike names": self.alike_names,
            "bad calls": self.bad_calls,
        }
        if self._finish is None:
            return always
        return always | {
            "finished": self.finished,
            "overlapping finishes": self.overlapping_finishes,
            "finish without forward": self.finish_without_forward,
            "finish after undo": self.finish_after_undo,
            "undo after finish": self.undo_after_finish,
            "late forward": self.late_forward,
        }

    def begin(self) -> None:
        """See that the participant answers and likes the payload."""
        gid = self._gid()
        try:
            answer = self._to.settled(self._forward, gid)
        except Wrong as wrong:
            self._to.call(self._undo, gid)
            raise NotConnected(
                f"{wrong}: to be tried, the participant must say yes. Is what it needs held by another, such"
                " as a transaction that is prepared?"
            ) from wrong
        if answer.status == 0:
            raise NotConnected(f"{self._forward} was not answered: {in_words(answer)}")
        if answer.status not in DONE:
            raise NotConnected(
                f"{self._forward} answered {in_words(answer)}: to be tried, the participant must say yes"
                " (200 or 204). Is the URL right (the operation is appended), and does it like the payload?"
            )
        self._to.settled(self._undo, gid)

    # -- order -------------------------------------------------------------------------------------

    def null(self) -> None:
        """Undo without its forward call."""
        before = self._state()
        must_be_done(self._to.settled(self._undo, self._gid()), f"{self._undo} without {self._forward}")
        self._must_be(
            before, f"{self._undo} without {self._forward} changed the state; there was nothing to undo"
        )

    def suspended(self) -> None:
        """The forward call after an undo that found nothing."""
        gid, before = self._gid(), self._state()
        self._to.settled(self._undo, gid)
        must_be_no(self._to.settled(self._forward, gid), f"{self._forward} after its {self._undo}")
        self._must_be(before, f"{self._forward} took effect after its {self._undo}; nobody will undo it")

    def duplicate(self) -> None:
        """The same forward call again."""
        gid = self._gid()
        first = self._yes(gid)
        once = self._state()
        again = self._to.settled(self._forward, gid)
        state = self._state()
        self._to.settled(self._undo, gid)
        if len(first.body) > REPLY_MAX:
            raise Wrong(f"{self._forward} answered {len(first.body)} bytes; a reply has at most {REPLY_MAX}")
        if (first.status, first.body) != (again.status, again.body):
            raise Wrong(
                f"{self._forward} answered {in_words(first)} and, asked again, {in_words(again)}; a duplicate"
                " gets the same answer"
            )
        if once != state:
            raise Wrong(f"{self._forward} took effect twice")

    def undone(self) -> None:
        """Forward and undo."""
        gid, before = self._gid(), self._state()
        self._yes(gid)
        must_be_done(self._to.settled(self._undo, gid), f"{self._undo} after {self._forward}")
        self._must_be(before, f"{self._undo} did not take back what {self._forward} did")

    def undone_twice(self) -> None:
        """Undo again."""
        gid, before = self._gid(), self._state()
        self._yes(gid)
        self._to.settled(self._undo, gid)
        must_be_done(self._to.settled(self._undo, gid), f"{self._undo} a second time", gone_is_fine=True)
        self._must_be(before, f"{self._undo} took effect twice")

    def forward_after_undo(self) -> None:
        """The forward call again after it was undone."""
        gid, before = self._gid(), self._state()
        self._yes(gid)
        self._to.settled(self._undo, gid)
        must_be_no(self._to.settled(self._forward, gid), f"{self._forward} repeated after its {self._undo}")
        self._must_be(before, f"{self._forward} took effect again after its {self._undo}")

    # -- overlap -----------------------------------------------------------------------------------

    def overlapping_duplicates(self) -> None:
        """The same forward call several times at once."""
        gid, before = self._gid(), self._state()
        answers = self._at_once([lambda: self._to.settled(self._forward, gid)] * AT_ONCE)
        what = f"{AT_ONCE} {self._forward} at once"
        final = self._to.settled(self._forward, gid)
        must_be_done(final, f"{self._forward} after {what}")
        must_be_done(self._to.settled(self._undo, gid), f"{self._undo} after {what}")
        for answer in answers:
            if answer.status in DONE and answer.body != final.body:
                raise Wrong(
                    f"of {what} one answered {in_words(answer)} and another {in_words(final)}: both ran"
                )
            if answer.status == 409:
                raise Wrong(f"of {what} one answered 409, a no for good, but another was done")
        self._must_be(before, f"of {what} more than one took effect")

    def overlapping_undo(self) -> None:
        """Forward call and undo at once: whoever is first, nothing is left."""
        for _ in range(ROUNDS):
            gid, before = self._gid(), self._state()
            _, undo = self._at_once(
                [partial(self._to.call, self._forward, gid), partial(self._to.call, self._undo, gid)]
            )
            if undo.status not in DONE:  # one that was done is not repeated: it must have been enough
                what = f"{self._undo} after one that overlapped with {self._forward}"
                must_be_done(self._to.settled(self._undo, gid), what)
            must_be_no(
                self._to.settled(self._forward, gid),
                f"{self._forward} after a {self._undo} that overlapped with it",
            )
            self._must_be(before, f"{self._forward} and {self._undo} at once left an effect")

    def overlapping_undos(self) -> None:
        """The same undo several times at once."""
        gid, before = self._gid(), self._state()
        self._yes(gid)
        answers = self._at_once([lambda: self._to.settled(self._undo, gid)] * AT_ONCE)
        what = f"{AT_ONCE} {self._undo} at once"
        for answer in answers:
            must_be_done(answer, f"one of {what}", gone_is_fine=True)
        self._must_be(before, f"of {what} more than one took effect")

    # -- late --------------------------------------------------------------------------------------

    def late_coordinator(self) -> None:
        """A coordinator that another one has replaced."""
        gid = self._gid()
        must_be_done(self._to.settled(self._forward, gid, epoch=7), f"{self._forward} in epoch 7")
        state = self._state()
        ops = [op for op in (self._forward, self._finish, self._undo) if op is not None]
        late = [(op, self._to.settled(op, gid, epoch=6)) for op in ops]
        unchanged = self._state() == state
        self._to.settled(self._undo, gid, epoch=7)
        if self._to.forward == "prepare":
            return  # what is prepared can't be asked for its epoch; both decisions come from one log
        for op, answer in late:
            must_be_no(answer, f"{op} in epoch 6, after epoch 7 had called,")
        if not unchanged:
            raise Wrong("a call in epoch 6 took effect after epoch 7 had called")

    def late_forward(self) -> None:
        """The forward call again after the finish."""
        gid = self._gid()
        first = self._yes(gid)
        self._to.settled(self._ending, gid)
        state = self._state()
        late = self._to.settled(self._forward, gid)
        if late.status not in (first.status, 409):
            raise Wrong(
                f"{self._forward} repeated after {self._ending} answered {in_words(late)}; right is its first"
                f" answer, {first.status}, or 409"
            )
        self._must_be(state, f"{self._forward} took effect again after {self._ending}")

    # -- finish ------------------------------------------------------------------------------------

    @property
    def _ending(self) -> str:
        assert self._finish is not None, "cases of the finish run for modes that have one"  # noqa: S101
        return self._finish

    def finished(self) -> None:
        """Forward and finish, and the finish again."""
        gid = self._gid()
        self._yes(gid)
        must_be_done(self._to.settled(self._ending, gid), f"{self._ending} after {self._forward}")
        state = self._state()
        must_be_done(self._to.settled(self._ending, gid), f"{self._ending} a second time", gone_is_fine=True)
        self._must_be(state, f"{self._ending} took effect twice")

    def overlapping_finishes(self) -> None:
        """The same finish several times at once: one effect, where the state is a number and tells."""
        effects, finishes = [], [1, AT_ONCE]
        for times in finishes:
            gid, before = self._gid(), self._number()
            self._yes(gid)
            for answer in self._at_once([partial(self._to.settled, self._ending, gid)] * times):
                must_be_done(answer, f"one of {times} {self._ending} at once", gone_is_fine=True)
            after = self._number()
            effects.append(None if before is None or after is None else after - before)
        one, many = effects
        if one is not None and many is not None and not math.isclose(one, many, abs_tol=1e-9):
            raise Wrong(
                f"{AT_ONCE} {self._ending} at once changed the state by {many:g}, a single one by {one:g}"
            )

    def finish_without_forward(self) -> None:
        """Finish where nothing is on record."""
        before = self._state()
        answer = self._to.settled(self._ending, self._gid())
        must_not_be_done(answer, f"{self._ending} without {self._forward}")
        self._must_be(before, f"{self._ending} without {self._forward} took effect")

    def finish_after_undo(self) -> None:
        """Finish what was undone."""
        gid, before = self._gid(), self._state()
        self._yes(gid)
        self._to.settled(self._undo, gid)
        must_not_be_done(self._to.settled(self._ending, gid), f"{self._ending} after {self._undo}")
        self._must_be(before, f"{self._ending} took effect after {self._undo}")

    def undo_after_finish(self) -> None:
        """Undo what was finished."""
        gid = self._gid()
        self._yes(gid)
        self._to.settled(self._ending, gid)
        state = self._state()
        must_not_be_done(self._to.settled(self._undo, gid), f"{self._undo} after {self._ending}")
        self._must_be(state, f"{self._undo} took effect after {self._ending}")

    # -- the rest ----------------------------------------------------------------------------------

    def two_branches(self) -> None:
        """Two branches of one transaction at the same participant."""
        gid, before = self._gid(), self._state()
        second = self._to.settled(self._forward, gid, branch="b2")
        must_be_done(second, f"{self._forward} of a second branch")
        alone = self._state()
        first = self._to.call(self._forward, gid)
        if first.status != 409 and first.status not in DONE and self._forward == "prepare":
            # What is prepared keeps its locks, as it should: two of the same payload may exclude each other.
            self._to.settled(self._undo, gid)
            self._to.settled(self._undo, gid, branch="b2")
            self._must_be(before, f"{self._undo} of two branches left an effect")
            return
        if first.status not in DONE:
            first = self._yes(gid)
        must_be_done(self._to.settled(self._undo, gid), f"{self._undo} of the first of two branches")
        self._must_be(alone, f"{self._undo} of one of two branches did not take back just that one")
        again = self._to.settled(self._forward, gid, branch="b2")
        self._to.settled(self._undo, gid, branch="b2")
        if (again.status, again.body) != (second.status, second.body):
            raise Wrong(
                f"after the {self._undo} of one branch the other's {self._forward} answered {in_words(again)}"
                f" instead of {in_words(second)}: Transaction-Branch tells them apart"
            )
        if first.body and first.body == second.body and before is not None:
            self._must_be(before, "two branches of one transaction did not have one effect each")

    def alike_names(self) -> None:
        """Ids as long as they may be, alike but for their last character, or for its case."""
        before, gid = self._state(), f"{self._gid()}.A_".ljust(GID_MAX - 1, "x")
        branch = "b" * (BRANCH_MAX - 1)
        pairs = {
            "gids of 100 characters that differ in the last": ((f"{gid}1", "b1"), (f"{gid}2", "b1")),
            "gids that differ in upper and lower case": ((f"{gid}a", "b1"), (f"{gid}A", "b1")),
            "branches of 40 characters that differ in the last": ((gid, f"{branch}1"), (gid, f"{branch}2")),
            "branches that differ in upper and lower case": ((gid, f"{branch}a"), (gid, f"{branch}A")),
        }
        for what, ((one, of_one), (other, of_other)) in pairs.items():
            first = self._to.settled(self._forward, one, branch=of_one)
            must_be_done(first, f"{self._forward}, of {what},")
            self._to.settled(self._undo, other, branch=of_other)
            again = self._to.settled(self._forward, one, branch=of_one)
            self._to.settled(self._undo, one, branch=of_one)
            if (first.status, first.body) != (again.status, again.body):
                raise Wrong(
                    f"{what} were taken for the same: {self._forward} then answered {in_words(again)}"
                )
        self._must_be(before, "branches with names that are alike did not have one effect each")

    def bad_calls(self) -> None:
        """What is no call of the protocol, or breaks off."""
        before = self._state()
        calls = {
            "an operation that does not exist": self._to.call("perhaps", self._gid()),
            f"{self._forward} without Transaction-Id": self._to.call(
                self._forward, self._gid(), without="Transaction-Id"
            ),
            f"{self._forward} without Transaction-Branch": self._to.call(
                self._forward, self._gid(), without="Transaction-Branch"
            ),
            f"{self._forward} with half a payload": self._to.call(
                self._forward, self._gid(), body=b'{"half": '
            ),
        }
        for what, answer in calls.items():
            must_not_be_done(answer, what)
        self._must_be(before, "a call that is none took effect")

    # -- helpers -----------------------------------------------------------------------------------

    def begin_case(self) -> None:
        """Forget what cases before have called."""
        self._gids.clear()

    def tidy(self) -> None:
        """Undo what a case that went wrong has left, so that it is not in the way of the next one."""
        for gid in self._gids:
            for branch in ("b1", "b2"):
                self._to.call(self._undo, gid, branch=branch, epoch=7)

    def _gid(self) -> str:
        gid = f"verify-{secrets.token_hex(8)}"
        self._gids.append(gid)
        return gid

    def _yes(self, gid: str) -> Answered:
        answer = self._to.settled(self._forward, gid)
        must_be_done(answer, self._forward)
        return answer

    @staticmethod
    def _at_once(calls: list[Callable[[], Answered]]) -> list[Answered]:
        with ThreadPoolExecutor(len(calls)) as pool:
            return [one.result() for one in [pool.submit(call) for call in calls]]

    def _must_be(self, before: bytes | None, otherwise: str) -> None:
        if self._state() != before:
            raise Wrong(otherwise)

    def _number(self) -> float | None:
        """The state, if it is a number."""
        try:
            return float(self._state() or b"")
        except ValueError:
            return None

    def _state(self) -> bytes | None:
        if self._state_url is None:
            return None
        path = self._state_url.path or "/"
        if self._state_url.query:
            path += f"?{self._state_url.query}"
        answer = request(self._state_url, path, timeout=self._timeout)
        if answer.status != 200:
            raise NotConnected(f"the state's URL answered {in_words(answer)}, not 200")
        return answer.body

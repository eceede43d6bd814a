"""Bounds on what one application, and all together, may use of a gateway, so that none delays the others.

An application is a reply topic. What exceeds a bound is refused, with a text that names the bound and its option.

Thread safety: belongs to the event loop thread.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable

from k2eg_rx.gateway.runtime.options import GatewayOptions

_BURST = 20  # operations of an application that start in one turn of the event loop
OVER_LIMIT = -10  # the code of replies to commands that exceed a bound; unknown to the deployed gateway


def too_many_names(count: int, options: GatewayOptions) -> str:
    """Returns why a command has too many PV names; an empty string if it has not."""
    if count <= options.max_names:
        return ""
    return (
        f"a command must have at most {options.max_names} PV names ([gateway] max_names), got {count}: "
        "send several commands"
    )


class Usage:
    """Counts the PVs and topics of active monitors and snapshots by application.

    A PV counts once for each monitor and each snapshot that has it.

    Args:
        options: The bounds.
        is_bounded: Whether the bounds hold.
    """

    def __init__(self, options: GatewayOptions, *, is_bounded: bool = True) -> None:
        self._options = options
        self._is_bounded = is_bounded
        self._pvs: Counter[str] = Counter()
        self._topics: Counter[str] = Counter()
        self._all_pvs = 0
        self._all_topics = 0

    def take(self, application: str, *, pvs: int, topics: int) -> str:
        """Takes PVs and topics for an application; returns why they exceed a bound and are not taken, or ``""``."""
        for what, wanted, counts, total in (
            ("pvs", pvs, self._pvs, self._all_pvs),
            ("topics", topics, self._topics, self._all_topics),
        ):
            for option, used in ((f"max_{what}_per_application", counts[application]), (f"max_{what}", total)):
                bound: int = getattr(self._options, option)
                if self._is_bounded and wanted and used + wanted > bound:
                    of = f" of application {application!r}" if option.endswith("application") else ""
                    return (
                        f"monitors and snapshots{of} may have {bound} {what} ([gateway] {option}); "
                        f"{used} are in use, {wanted} more were requested"
                    )
        self._add(application, pvs, topics)
        return ""

    def give_back(self, application: str, *, pvs: int, topics: int) -> None:
        """Gives PVs and topics back."""
        self._add(application, -pvs, -topics)

    def _add(self, application: str, pvs: int, topics: int) -> None:
        self._all_pvs += pvs
        self._all_topics += topics
        for counts, number in ((self._pvs, pvs), (self._topics, topics)):
            counts[application] += number
            if not counts[application]:
                del counts[application]


class MonitorShare:
    """The PVs and topics that one command has taken of its application's bounds: one of each for each monitor.

    Attributes:
        application: The application.
        refusal: Why nothing was taken; an empty string if it was.
    """

    def __init__(self, usage: Usage, application: str, count: int) -> None:
        self._usage = usage
        self.application = application
        self.refusal = usage.take(application, pvs=count, topics=count)
        self._unused = 0 if self.refusal else count

    def use_one(self) -> None:
        """Uses one for a monitor that starts; takes one more if another one has ended since the command arrived."""
        if self._unused:
            self._unused -= 1
        else:
            self._usage.give_back(self.application, pvs=-1, topics=-1)

    def give_back_one(self) -> None:
        """Gives back that of a monitor that has ended."""
        self._usage.give_back(self.application, pvs=1, topics=1)

    def give_back_rest(self) -> None:
        """Gives back what no monitor uses."""
        unused, self._unused = self._unused, 0
        self._usage.give_back(self.application, pvs=unused, topics=unused)


class Slot:
    """The place of one get or put among those that run or wait.

    Attributes:
        running: Whether it was started and has not been released.
    """

    __slots__ = ("application", "running", "start", "waiting")

    def __init__(self, application: str, start: Callable[[], None]) -> None:
        self.application = application
        self.start = start
        self.running = False
        self.waiting = False


class FairShares:
    """Starts gets and puts within bounds: per application, and in all.

    What cannot start waits behind others of its application. If all together are at their bound, an application with
    less than its equal share may start nevertheless, and freed places go round the applications that wait. In a turn of
    the event loop each application starts a few only, so that others read, start and publish in between.

    Args:
        options: The bounds.
        next_turn: Runs an action in the next turn of the event loop.
    """

    def __init__(self, options: GatewayOptions, next_turn: Callable[[Callable[[], None]], None]) -> None:
        self._options = options
        self._next_turn = next_turn
        self._burst: Counter[str] = Counter()  # started in this turn
        self._running: Counter[str] = Counter()
        self._all_running = 0
        self._waiting: OrderedDict[str, deque[Slot]] = OrderedDict()
        self._waits: Counter[str] = Counter()
        self._all_waiting = 0
        self._released: deque[str] = deque()
        self._admitting = False

    def refusal(self, application: str) -> str:
        """Returns why no more may wait for an application; an empty string if they may."""
        if self._may_run(application):
            return ""
        waits = self._waits[application]
        for option, used in (("max_waiting_per_application", waits), ("max_waiting", self._all_waiting)):
            bound: int = getattr(self._options, option)
            if used >= bound:
                return (
                    f"application {application!r} has {self._running[application]} gets and puts under way and {waits} "
                    f"waiting; {bound} may wait ([gateway] {option}). This one was not carried out"
                )
        return ""

    def enter(self, application: str, start: Callable[[], None]) -> Slot:
        """Starts an operation, now or when its turn comes; it has to be released in either case."""
        slot = Slot(application, start)
        if application not in self._waiting and self._may_run(application):
            self._run(slot)
        else:
            slot.waiting = True
            self._waiting.setdefault(application, deque()).append(slot)
            self._waits[application] += 1
            self._all_waiting += 1
        return slot

    def release(self, slot: Slot) -> None:
        """Ends an operation, whether it runs or waits; starts another one in its place. Idempotent."""
        if slot.waiting:
            self._end_waiting(slot)
        elif slot.running:
            slot.running = False
            self._all_running -= 1
            self._running[slot.application] -= 1
            if not self._running[slot.application]:
                del self._running[slot.application]
            self._admit(slot.application)

    def _may_run(self, application: str) -> bool:
        running = self._running[application]
        if running >= self._options.max_pending_per_application or self._burst[application] >= _BURST:
            return False
        applications = len(self._running) + (application not in self._running)
        share = self._options.max_pending // applications
        return self._all_running < self._options.max_pending or running < share

    def _run(self, slot: Slot) -> None:
        if not self._burst:
            self._next_turn(self._begin_turn)
        self._burst[slot.application] += 1
        slot.running = True
        self._all_running += 1
        self._running[slot.application] += 1
        slot.start()

    def _begin_turn(self) -> None:
        self._burst.clear()
        for application in list(self._waiting):
            while self._start_next(application):
                pass

    def _end_waiting(self, slot: Slot) -> None:
        slot.waiting = False
        self._all_waiting -= 1
        self._waits[slot.application] -= 1
        if not self._waits[slot.application]:  # those that are left in the queue were released
            del self._waits[slot.application], self._waiting[slot.application]

    def _admit(self, application: str) -> None:
        """Starts a waiting operation after one of `application` has ended, preferably of the same."""
        self._released.append(application)
        if self._admitting:  # re-entrant call: an operation ended while starting
            return
        self._admitting = True
        try:
            while self._released:
                if not self._start_next(self._released.popleft()) and self._waiting:
                    other = next(iter(self._waiting))
                    self._waiting.move_to_end(other)
                    self._start_next(other)
        finally:
            self._admitting = False

    def _start_next(self, application: str) -> bool:
        queue = self._waiting.get(application)
        if queue is None or not self._may_run(application):
            return False
        slot = queue.popleft()
        while not slot.waiting:  # released
            slot = queue.popleft()
        self._end_waiting(slot)
        self._run(slot)
        return True

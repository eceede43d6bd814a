"""KeyedQueue: puts to a PV run one at a time and in order; gets pass between them."""

from __future__ import annotations

from k2eg_rx.gateway.commands.put_ordering import KeyedQueue, Ticket


class NamedTickets:
    """A keyed queue with named tickets, and the names of those that started."""

    def __init__(self) -> None:
        self.queue = KeyedQueue()
        self.started: list[str] = []
        self.tickets: dict[str, Ticket] = {}

    def enter(self, name: str, *, blocking: bool, pv: str = "pv") -> None:
        self.tickets[name] = Ticket(lambda: self.started.append(name), blocking=blocking)
        self.queue.enter(pv, self.tickets[name])

    def release(self, name: str, pv: str = "pv") -> None:
        self.queue.release(pv, self.tickets[name])


def test_a_blocking_ticket_delays_later_ones_and_others_do_not() -> None:
    tickets = NamedTickets()
    for name in ("r1", "w1", "r2", "r3", "w2", "w3", "r4"):
        tickets.enter(name, blocking=name.startswith("w"))
    assert tickets.started == ["r1", "w1"]
    tickets.release("r1")
    assert tickets.started == ["r1", "w1"]
    tickets.release("w1")
    assert tickets.started[2:] == ["r2", "r3", "w2"]
    tickets.release("w2")
    assert tickets.started[5:] == ["w3"]
    tickets.release("w3")
    assert tickets.started[6:] == ["r4"]
    assert len(tickets.queue) == 0


def test_keys_are_independent() -> None:
    tickets = NamedTickets()
    tickets.enter("a", blocking=True, pv="a")
    tickets.enter("b", blocking=True, pv="b")
    assert tickets.started == ["a", "b"]


def test_a_ticket_released_before_its_start_is_skipped() -> None:
    tickets = NamedTickets()
    for name in ("w1", "w2", "w3"):
        tickets.enter(name, blocking=True)
    tickets.release("w2")
    tickets.release("w2")
    tickets.release("w1")
    assert tickets.started == ["w1", "w3"]
    assert not tickets.tickets["w2"].started


def test_releasing_twice_does_not_release_another_ticket() -> None:
    tickets = NamedTickets()
    for name in ("w1", "w2", "w3"):
        tickets.enter(name, blocking=True)
    tickets.release("w1")
    tickets.release("w1")
    assert tickets.started == ["w1", "w2"]


def test_tickets_released_while_starting_do_not_recurse() -> None:
    queue = KeyedQueue()
    ended = 0

    def enter() -> None:
        def start() -> None:
            nonlocal ended
            ended += 1
            queue.release("pv", ticket)

        ticket = Ticket(start, blocking=True)
        queue.enter("pv", ticket)

    first = Ticket(lambda: None, blocking=True)
    queue.enter("pv", first)
    for _ in range(5000):
        enter()
    queue.release("pv", first)
    assert ended == 5000
    assert len(queue) == 0

"""Runs a site for minutes while its parts are killed, frozen and restarted, and checks every value and every put.

    python benchmarks/soak.py --minutes 20 [--seed N] [--pvs 200] [--rate 10] [--json FILE] [--keep FOLDER]

An IOC posts known values; a gateway publishes them to Apache Kafka; a client monitors and records them and takes a
recurring snapshot. Another client puts, each value once per PV, through two gateways of one group; the IOC logs what
it carries out. At the end a bare Kafka consumer reads everything, and the counts of `soak_check` are printed. The exit
code is 1 if a count that must be zero is not. The seed repeats the order and the durations of the disturbances.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measuring import machine  # first: it adds the folder of the tests' broker to the path
from soak_check import ZERO, Absence, failures
from soak_results import count_all
from soak_site import Part, Site

_RECOVERY = 180.0  # seconds after a disturbance until values and puts must flow again
_POLL = 0.2
_CALM = (1.0, 5.0)  # seconds between a recovery and the next disturbance
_DOWN = (0.5, 8.0)  # seconds that a killed part stays away
_FROZEN = (1.0, 15.0)  # seconds; a gateway loses its place in its group after 6
_FINAL = 180.0  # seconds until the last values have arrived


class Soak:
    """The disturbances of one run.

    Args:
        site: The processes.
        chance: Chooses.
        log: Takes a line for each event.
    """

    def __init__(self, site: Site, chance: random.Random, log: Callable[[str], None]) -> None:
        self._site = site
        self._chance = chance
        self._log = log
        self.events: list[dict[str, Any]] = []
        self.absences: list[Absence] = []
        self.counts: Counter[str] = Counter()

    def run(self, seconds: float) -> None:
        """Disturbs one part after the other for a time, each kind in a random order before it repeats."""
        self._recover("everything started", time.time())
        self.absences.append(Absence("before the start", 0.0, time.time()))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            kinds = self._kinds()
            self._chance.shuffle(kinds)
            for what, disturb in kinds:
                if time.monotonic() > deadline:
                    return
                time.sleep(self._chance.uniform(*_CALM))
                self._restart_dead()
                begin = time.time()
                disturb()
                self._recover(what, begin)

    def _kinds(self) -> list[tuple[str, Callable[[], None]]]:
        site, kinds = self._site, list[tuple[str, Callable[[], None]]]()
        putting = self._chance.choice(site.put_gateways)
        for part in (putting, site.monitor_gateway, site.watcher, site.putter):
            kinds += [
                (f"{part.name} killed", lambda part=part: self._kill(part)),
                (f"{part.name} frozen", lambda part=part: self._freeze(part.signal)),
                (f"{part.name} restarted", lambda part=part: self._restart(part)),
            ]
        kinds += [
            ("ioc killed", lambda: self._kill(site.ioc)),
            ("broker killed", lambda: self._away(site.broker.kill)),
            ("broker restarted", lambda: self._away(site.broker.stop)),
            ("broker frozen", self._freeze_broker),
        ]
        return kinds

    def _pause(self, bounds: tuple[float, float]) -> None:
        time.sleep(self._chance.uniform(*bounds))

    def _kill(self, part: Part) -> None:
        part.kill()
        self._pause(_DOWN)
        part.start()

    def _restart(self, part: Part) -> None:
        part.stop()
        self._pause(_DOWN)
        part.start()

    def _freeze(self, send: Callable[[signal.Signals], None]) -> None:
        send(signal.SIGSTOP)
        self._pause(_FROZEN)
        send(signal.SIGCONT)

    def _freeze_broker(self) -> None:
        self._site.broker.suspend()
        self._pause(_FROZEN)
        self._site.broker.resume()

    def _away(self, end: Callable[[], None]) -> None:
        end()
        self._pause(_DOWN)
        self._site.broker.start()

    def _restart_dead(self) -> None:
        for part in self._site.parts:
            if part.has_died():
                self.counts["processes died"] += 1
                self._log(f"{part.name} has ended by itself")
                part.start()

    def _recover(self, what: str, begin: float) -> None:
        """Waits until values and puts flow again, and records how long that takes."""
        resumed = time.time()
        values = self._wait(lambda: self._values_flow(resumed))
        puts = self._wait(lambda: len(self._site.puts_done_since(resumed)) == len(self._putting()))
        self.events.append({"what": what, "begin": begin, "away": resumed - begin, "values": values, "puts": puts})
        part, _, how = what.rpartition(" ")
        if part in ("gateway-monitors", "ioc"):
            self.absences.append(Absence(f"{part} {how}", begin, time.time()))
        for name, seconds in (("values", values), ("puts", puts)):
            if seconds is None:
                self.counts["not recovered"] += 1
                self._log(f"{what}: {name} do not flow {_RECOVERY:g} s after it")
        self._log(f"{what}: away {resumed - begin:.1f} s, values again after {_text(values)}, puts after {_text(puts)}")

    def _putting(self) -> range:
        return range(self._site.targets)

    def _values_flow(self, since: float) -> bool:
        newest, wanted = self._site.read_received(), self._site.first_tick_after(since)
        return (
            wanted is not None and len(newest) == self._site.pvs and all(value >= wanted for value in newest.values())
        )

    def _wait(self, happened: Callable[[], bool], seconds: float = _RECOVERY) -> float | None:
        begin = time.monotonic()
        while not happened():
            if time.monotonic() > begin + seconds:
                return None
            time.sleep(_POLL)
        return time.monotonic() - begin

    def finish(self) -> None:
        """Stops the values, waits for the last ones, and ends all processes in order."""
        site = self._site
        self._restart_dead()
        last = site.stop_counting()
        if self._wait(lambda: set(site.read_received().values()) == {last}, _FINAL) is None:
            self.counts["not recovered"] += 1
            self._log(f"the last value, {last}, has not reached all PVs of the client")
        for part in (site.putter, site.watcher, *site.put_gateways, site.monitor_gateway):
            part.stop()
            unclean = [code for code in part.exit_codes if code != 0]
            self.counts["unclean exits"] += len(unclean)
            if unclean:
                self._log(f"{part.name} ended with the codes {unclean} at SIGTERM")


def _text(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="k2eg-soak-") as folder:
        yield Path(folder)


def _report(counts: Mapping[str, int]) -> None:
    for name, count in sorted(counts.items()):
        verdict = "" if name not in ZERO else "ok" if not count else "MUST BE ZERO"
        print(f"{name:60}{count:>12,}  {verdict}".rstrip())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="of disturbances (default %(default)g)")
    parser.add_argument("--seed", type=int, help="of the disturbances; a random one by default")
    parser.add_argument("--pvs", type=int, default=200, help="counting PVs (default %(default)s)")
    parser.add_argument("--rate", type=float, default=10.0, help="of each, in hertz (default %(default)g)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the results")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder whose logs and data are kept")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}: python benchmarks/soak.py --minutes {options.minutes:g} --seed {seed}", flush=True)
    begin = time.monotonic()

    def log(text: str) -> None:
        print(f"{time.monotonic() - begin:7.1f} s  {text}", flush=True)

    with _folder(options.keep) as folder:
        site = Site(folder, options.pvs, options.rate)
        try:
            soak = Soak(site, random.Random(seed), log)
            site.start()
            soak.run(60.0 * options.minutes)
            soak.finish()
            log("reading what Kafka holds")
            counts = soak.counts + count_all(site, soak.absences)
        finally:
            site.close()
    _report({**dict.fromkeys(ZERO, 0), **counts})
    failed = failures(counts)
    if options.json:
        result = {"machine": machine(), "seed": seed, "minutes": options.minutes, "events": soak.events}
        options.json.write_text(json.dumps({**result, "counts": counts, "failures": failed}, indent=1))
    print("FAILED: " + ", ".join(f"{name}: {count}" for name, count in failed.items()) if failed else "passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

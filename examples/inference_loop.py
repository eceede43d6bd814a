"""A loop at 1 Hz: reads the inputs of a model, computes, and writes its outputs.

    k2eg demo                                  # in one terminal
    python examples/inference_loop.py          # in another: prints what it would write
    python examples/inference_loop.py --write  # writes it

Inputs that do not answer are read again. Without all of them nothing is written. A put is never repeated, because one
without a reply may have been carried out: the loop reports which outputs failed, and goes on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from statistics import fmean

from k2eg.dml import dml

BPMS = [f"pva://demo:bpm{number}" for number in range(1, 21)]
INPUTS = [*BPMS, *(f"pva://demo:{name}" for name in ("sine1", "sine10", "ramp1", "ramp10", "temperature"))]
MAGNETS = ["demo:setpoint1", "demo:setpoint2"]


class MissingInputsError(Exception):
    """Inputs did not answer; the text names them and the reasons."""


def read(client: dml, uris: Sequence[str], attempts: int, timeout: float) -> list[float]:
    """Returns the values of all inputs; reads again those that do not answer.

    Raises:
        MissingInputsError: An input did not answer at any attempt.
    """
    values: dict[str, float] = {}
    failures: dict[str, Exception] = {}
    for _ in range(attempts):
        missing = [uri for uri in uris if uri not in values]
        if not missing:
            break
        for uri, got in client.get_many(missing, timeout).items():
            if isinstance(got, Exception):
                failures[uri] = got
            else:
                values[uri] = float(got["value"])
    if len(values) < len(uris):
        raise MissingInputsError("; ".join(f"{uri}: {failures[uri]}" for uri in uris if uri not in values))
    return [values[uri] for uri in uris]


def infer(inputs: Sequence[float]) -> dict[str, float]:
    """Returns the outputs by URI: a current for each magnet, and alarm limits around it. Put your model here."""
    outputs: dict[str, float] = {}
    for magnet, current in zip(MAGNETS, (1.0 + 0.1 * fmean(inputs[:20]), 2.0 + 0.01 * fmean(inputs[20:])), strict=True):
        outputs[f"ca://{magnet}"] = current
        for limit, distance in {"LOLO": -2.0, "LOW": -1.0, "HIGH": 1.0, "HIHI": 2.0}.items():
            outputs[f"ca://{magnet}.{limit}"] = current + distance
    return outputs


def write(client: dml, outputs: Mapping[str, float], timeout: float) -> str:
    """Writes all outputs at once; returns a report: all are written, or which are not."""
    replies = client.put_many(outputs, timeout)
    failures = [f"{uri}: {reply}" for uri, reply in replies.items() if isinstance(reply, Exception)]
    if not failures:
        return f"wrote all {len(outputs)} outputs"
    return f"FAILED for {len(failures)} of {len(outputs)} outputs: {'; '.join(failures)}"


def cycle(client: dml, inputs: Sequence[str], options: argparse.Namespace) -> str:
    """Reads, computes and writes once; returns a report."""
    try:
        outputs = infer(read(client, inputs, options.attempts, options.timeout))
    except MissingInputsError as error:
        return f"wrote nothing: {error}"
    if not options.write:
        return "would write " + ", ".join(f"{uri} = {value:.3f}" for uri, value in outputs.items())
    return write(client, outputs, options.timeout)


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-e", "--environment", default="demo")
    parser.add_argument("--input", action="append", default=[], help="one more input; can be repeated")
    parser.add_argument("--period", type=float, default=1.0, help="seconds from cycle to cycle")
    parser.add_argument("--attempts", type=int, default=3, help="how often an input is read that does not answer")
    parser.add_argument("--timeout", type=float, default=2.0, help="seconds for each attempt, and for the writes")
    parser.add_argument("--cycles", type=int, default=0, help="number of cycles; 0 for no end")
    parser.add_argument("--write", action="store_true", help="write; otherwise print what would be written")
    options = parser.parse_args()
    number = 0
    with dml(options.environment, "example-inference") as client:
        due = time.monotonic()
        while not options.cycles or number < options.cycles:
            number += 1
            print(f"cycle {number}: {cycle(client, INPUTS + options.input, options)}", flush=True)
            due = max(due + options.period, time.monotonic())  # a cycle that took too long shifts the later ones
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # Ctrl-C ends the loop and closes the client; the outputs keep their values
        main()

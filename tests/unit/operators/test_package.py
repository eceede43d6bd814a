"""Public names of the package, and its imports."""

import subprocess
import sys

from k2eg_rx import operators

OPERATORS = {
    *(
        "alarms",
        "align",
        "aligned_windows",
        "changed",
        "combine_pvs",
        "conflate",
        "field",
        "latest_by_pv",
        "rate_limit",
    ),
    *("fresh", "guarded", "pulse_ids", "put_many_to", "put_to", "settled", "shared_scheduler", "valid"),
    *("resample", "retry_activation", "stale", "sample_latest", "timestamps", "value", "window_statistics"),
}


def test_public_names() -> None:
    names = operators.__all__
    assert {name for name in names if name[0].islower()} == OPERATORS
    assert {"AlarmTransition", "MissingFieldError", "PutOutcome", "PutClient", "Staleness", "PutReport"} <= set(names)
    assert len(set(names)) == len(names)
    assert all(hasattr(operators, name) for name in names)


def test_numpy_is_not_imported_before_an_operator_needs_it() -> None:
    program = (
        "import sys, k2eg_rx, k2eg_rx.operators as operators; assert 'numpy' not in sys.modules;"
        "operators.conflate(1); operators.alarms(); assert 'numpy' not in sys.modules;"
        "operators.value(); assert 'numpy' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

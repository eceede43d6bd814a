"""Faults of environment files."""

from __future__ import annotations

from pathlib import Path

from k2eg.cli.diagnosis.environment_files import environment_faults

FILE = """[DEFAULT]
kafka_broker_url=b:9092
k2eg_cmd_topic=c
kafka_url=x
[gateway]
read_olny=yes
max_pvs=many
group=control
"""


def test_all_faults_are_found_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "lab.ini"
    path.write_text(FILE)
    assert environment_faults(path) == [
        f"{path}:4: unknown key kafka_url in [DEFAULT]: did you mean kafka_broker_url?",
        f"{path}:6: [gateway] read_olny is not an option: did you mean read_only?",
        f"{path}:7: [gateway] max_pvs must be a whole number, got 'many'",
    ]

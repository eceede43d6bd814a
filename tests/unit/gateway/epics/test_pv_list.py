"""The file of the option `pvlist`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from k2eg_rx.gateway.epics.pv_list import PVDeniedError, PVEntry, PVList
from k2eg_rx.pv import PVAddress

SAMPLE = r"""# comment
EVALUATION ORDER ALLOW, DENY
.*            ALLOW
motor:.*      ALLOW  MOTORS 1
gun:(.*)      ALIAS  linac:gun:\1  GUN
beam          ALIAS  linac:beam:current
secret.*      DENY
linac:.*:set  DENY
exact         DENY
"""


@pytest.fixture
def pvs(tmp_path: Path) -> Callable[[str], PVList]:
    def make(text: str) -> PVList:
        (tmp_path / "pvlist").write_text(text)
        return PVList(str(tmp_path / "pvlist"))

    return make


@pytest.mark.parametrize(
    ("uri", "entry"),
    [
        ("pva://a:b", PVEntry(PVAddress.parse("pva://a:b"))),
        ("ca://motor:x", PVEntry(PVAddress.parse("ca://motor:x"), "MOTORS", 1)),
        ("ca://motor:x.VELO", PVEntry(PVAddress.parse("ca://motor:x.VELO"), "MOTORS", 1)),
        ("pva://gun:phase", PVEntry(PVAddress.parse("pva://linac:gun:phase"), "GUN")),
        ("pva://gun:phase.alarm.status", PVEntry(PVAddress.parse("pva://linac:gun:phase.alarm.status"), "GUN")),
        ("ca://beam", PVEntry(PVAddress.parse("ca://linac:beam:current"))),
        ("pva://a..b", PVEntry(PVAddress.parse("pva://a..b"))),
    ],
)
def test_the_last_line_that_matches_decides(pvs: Callable[[str], PVList], uri: str, entry: PVEntry) -> None:
    assert pvs(SAMPLE).entry(PVAddress.parse(uri)) == entry


@pytest.mark.parametrize(
    ("text", "uri", "reason"),
    [
        (SAMPLE, "pva://secret:a", "line 7 of the list denies it"),
        (SAMPLE, "pva://linac:gun:set", "line 8 of the list denies it"),
        (SAMPLE, "ca://exact", "line 9 of the list denies it"),
        (SAMPLE, "ca://exact.VAL", "line 9 of the list denies it"),
        (SAMPLE, 'ca://exact.VAL{"arr":{}}', "line 9 of the list denies it"),
        (SAMPLE, "pva://exact.value", "line 9 of the list denies it"),
        (
            r"(.*):x ALIAS \1:$y",
            "pva://a:x",
            "the list has an alias for it that is none: The url is not well formed: "
            "'pva://a:$y': a PV's name must have no white space, quotes or '$', got 'a:$y'",
        ),
        (SAMPLE, "pva://gun:a..b", "the list has an alias for it, and aliases are for names without '..'"),
        ("a.b DENY\n.* ALLOW", "pva://a..b", "line 1 of the list denies it"),
        ("a:.* ALLOW", "pva://b", "no line of the list allows it"),
        ("a ALLOW", "pva://a.value", "no line of the list allows it"),
        ("", "pva://a", "no line of the list allows it"),
        ("# nothing\n", "pva://a", "no line of the list allows it"),
    ],
)
def test_a_denial_names_its_line(pvs: Callable[[str], PVList], text: str, uri: str, reason: str) -> None:
    with pytest.raises(PVDeniedError) as denied:
        pvs(text).entry(PVAddress.parse(uri))
    assert str(denied.value) == reason


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a ALLOW\nb", "line 2 must be a pattern and ALLOW, ALIAS or DENY, got 'b'"),
        ("a FORBID", "line 1 must be a pattern and ALLOW, ALIAS or DENY, got 'a FORBID'"),
        ("a ALLOW\n(b ALLOW", "line 2: missing ), unterminated subpattern"),
        ("(a) ALLOW", "line 1: capture groups not permitted with ALLOW"),
        ("a ALIAS", "line 1: the name that the alias stands for is missing"),
        (r"a(.*) ALIAS b\2", "line 1: Out of range substitution 2"),
        ("a ALLOW G one", "line 1: invalid literal for int()"),
        ("a DENY FROM host", "line 1: DENY FROM names hosts, which commands from Kafka do not have; use access"),
        ("a DENY\n\na ALLOW", "line 3 has the pattern of line 1, which would have no effect; remove one"),
        (r"(.)\1:x DENY", "line 1: the pattern must not refer to its own groups"),
        ("(?P<a>.)(?P=a) DENY", "line 1: the pattern must not refer to its own groups"),
        ("EVALUATION ORDER DENY, ALLOW", "line 1: the order must be 'ALLOW, DENY', so that lines that deny decide"),
    ],
)
def test_what_cannot_be_used_is_an_error_with_its_line(pvs: Callable[[str], PVList], text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"\[gateway\] pvlist '.*pvlist', line") as raised:
        pvs(text)
    assert words in str(raised.value)


def test_patterns_that_do_not_go_together_are_an_error(pvs: Callable[[str], PVList]) -> None:
    with pytest.raises(ValueError, match=r"do not go together: redefinition of group name"):
        pvs("(?P<x>a) ALIAS b\n(?P<x>c) ALIAS d")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"\[gateway\] pvlist must be a file that can be read, got '.*none': .*No such"
    ):
        PVList(str(tmp_path / "none"))

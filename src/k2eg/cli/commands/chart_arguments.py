"""The arguments of the commands that draw PVs on a page or once."""

from __future__ import annotations

import argparse
import re

from k2eg.cli.arguments import Parser, add_protocol, add_pvs, add_timeout_option, port, pv_uri
from k2eg.cli.commands.view_arguments import moment


def add_web(web: Parser) -> None:
    """Adds the arguments of ``web``."""
    add_pvs(web)
    web.add_argument(
        "--since",
        type=moment,
        default="10m",
        metavar="TIME",
        help="begin with what Kafka keeps since then: 90s, 10m, 1h30m ago, or 06:30 (default: 10m)",
    )
    web.add_argument("--port", type=port, default=0, metavar="N", help="the port (default: any that is free)")
    web.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="HOST",
        help="the address to listen at (default: 127.0.0.1, for browsers of this machine); others need a token",
    )
    web.add_argument(
        "--token",
        type=_url_token,
        metavar="TEXT",
        help="what the URL must contain (default: random, where it is needed)",
    )


def _url_token(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.~-]{8,}", text):
        raise argparse.ArgumentTypeError("must have at least 8 characters, letters, digits, _ . ~ - only")
    return text


def add_plot(plot: Parser) -> None:
    """Adds the arguments of ``plot``."""
    plot.add_argument("name", type=pv_uri, metavar="PV", help="NAME, pva://NAME or ca://NAME")
    plot.add_argument("-o", "--output", metavar="FILE", help="write a PNG file; it must not exist (needs matplotlib)")
    add_protocol(plot)
    add_timeout_option(plot)

"""For Jupyter notebooks: a client that lives across cells, and streams as live tables and plots.

Needs the extra ``notebook``. Import the package, not its functions, as `display` is a name of IPython's, too.

- `connect`: a `k2eg_rx.Client` that replaces the one that the same cell made before
- `display`: a stream in the output of a cell, until it is stopped
"""

from k2eg_rx.notebook.kept_clients import connect
from k2eg_rx.notebook.live_view import View, display

__all__ = ["View", "connect", "display"]

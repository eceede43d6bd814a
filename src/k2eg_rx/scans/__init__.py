"""Procedures on a machine: move and wait, scan, and put back what was changed.

- `settle`: waits until a read-back has come to a value
- `restoring`: puts values back at the end of a block, however it ends
- `scan`: moves set points through values and takes measurements at each
"""

from k2eg_rx.scans.clients import ScanClient
from k2eg_rx.scans.points import Readback, ScanPoint
from k2eg_rx.scans.restoring import RestoreError, restoring
from k2eg_rx.scans.scan import ScanError, scan
from k2eg_rx.scans.settle import settle

__all__ = ["Readback", "RestoreError", "ScanClient", "ScanError", "ScanPoint", "restoring", "scan", "settle"]

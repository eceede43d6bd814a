"""A K2EG installation in this process, for the demo and for tests: broker, EPICS IOC and gateway.

The parts, which need the extra ``demo``, are imported when a stack starts.
"""

from k2eg_rx.embedded.ioc import SoftIoc
from k2eg_rx.embedded.loopback import ServerPorts, merge_client_environments, without_epics
from k2eg_rx.embedded.stack import DEMO_DATABASE, EmbeddedStack

__all__ = [
    "DEMO_DATABASE",
    "EmbeddedStack",
    "ServerPorts",
    "SoftIoc",
    "merge_client_environments",
    "without_epics",
]

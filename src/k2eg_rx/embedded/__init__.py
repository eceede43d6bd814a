"""A Kafka broker in this process and a real EPICS IOC beside it, for the demo and for tests.

Importing this imports neither: the parts are loaded when the stack is started.
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

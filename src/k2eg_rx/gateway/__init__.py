"""The other end of the wire: a K2EG gateway to real EPICS, over PVAccess and Channel Access."""

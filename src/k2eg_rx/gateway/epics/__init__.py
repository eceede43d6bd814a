"""EPICS clients: PVAccess over p4p, Channel Access over aioca."""

"""What it takes to test a script that uses this library: a transport in memory."""

"""The commands of the command line, one module each; see `k2eg.cli.command_table`."""

"""Consumers: poll loop, topic sources, groups, history."""

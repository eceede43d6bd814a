"""What the cluster knows of topics: existence, partitions, offsets, creation."""

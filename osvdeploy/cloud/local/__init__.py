"""What needs no cloud: an object store in a directory, and HTTP probes."""

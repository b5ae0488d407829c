"""The simulated services: one module each, one function per operation and per due event.

A service is a module with ``OPERATIONS`` (by the API's name), ``EVENTS`` (what is due by itself, by name) and
``PARAMETERS``: what each operation understands, as names or as dotted paths without list positions
(``BlockDeviceMappings.Ebs.SnapshotId``; a path stands for all below it), in a set or separated by white space. Any
other parameter of a simulated operation is refused as not simulated.
"""

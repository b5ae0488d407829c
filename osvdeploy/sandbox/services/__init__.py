"""The simulated services: one module each, one function per operation and per due event."""

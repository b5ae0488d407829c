"""From a raw disk on this machine to an image that a cloud starts machines from."""

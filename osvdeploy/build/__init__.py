"""From what a user declares to a raw disk in the cache: plan, lock, cache, builder."""

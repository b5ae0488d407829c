"""Cloud image to traffic: a rollout is a value, what to do next a pure function, and every step is in the ledger."""

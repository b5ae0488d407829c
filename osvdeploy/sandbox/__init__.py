"""AWS on loopback: a strict simulator. It needs no account and knows nothing of the product but OSv's formats."""

"""The story, its boot guest and its hello program."""

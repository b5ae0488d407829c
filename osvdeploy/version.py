"""The version of osvdeploy, in one place and without any import."""

__version__ = "0.1.0"

"""osvdeploy: build, publish and roll out OSv unikernel images.

The public names are those of :mod:`osvdeploy.api`; nothing is imported here, so that the command line starts fast.
"""

from osvdeploy.version import __version__

__all__ = ["__version__"]

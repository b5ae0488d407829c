"""``python -m osvdeploy`` is the command line."""

from osvdeploy.cli import main

main()

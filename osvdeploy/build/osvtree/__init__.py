"""Drives an OSv source tree's own ``scripts/build``: modules, kernel options and every file system that OSv has.

source     what a tree is: its state (commit, changes), options, drivers profiles and modules
settings   the spec's options, sorted into Kconfig values and arguments, each of which must be one the tree knows
manifest   our files as lines of usr.manifest
process    one run of a program in the tree: lock, log; a guard (osvdeploy.processes) ends it when we die
failures   what a log that ended badly means, and what to do
disk       usr.img to a raw disk, looked at before it is believed
builder    all of it, and the cache
"""

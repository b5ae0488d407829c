"""Machines in QEMU on this host. Knows no cloud and no OSv: a disk goes in, a console comes out."""

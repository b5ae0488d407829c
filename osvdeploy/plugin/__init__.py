"""The Pulumi provider as a plugin on this machine: put where Pulumi's command finds it, and looked at.

``pulumi`` itself need not be here to put the plugin in its place. What the provider does is
:mod:`osvdeploy.provider`'s, which this room only meets as a process.
"""

"""The Pulumi provider: osvdeploy as resources beside those of the clouds. It translates; all work is osvdeploy.api's.

A process of its own (``pulumi-resource-osvdeploy``) that Pulumi's engine starts and asks over gRPC. What a resource has
is declared once, by dataclasses (:mod:`osvdeploy.provider.declare`); the schema, checks, diffs and the SDKs' docs
follow from it. A resource is one module in :mod:`osvdeploy.provider.resources`, listed in
:mod:`osvdeploy.provider.registry`.
"""

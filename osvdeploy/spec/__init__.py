"""What the user declares: osv.toml as a model, read with every problem reported at once."""

from osvdeploy.spec.load import LoadedSpec, load

__all__ = ["LoadedSpec", "load"]

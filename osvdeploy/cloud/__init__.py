"""Where images go and traffic runs: the ports (``interfaces``) and one package per place that implements them."""

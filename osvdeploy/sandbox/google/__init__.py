"""Google's APIs, simulated: :mod:`discovery` and :mod:`wire` speak any of them by Google's own documents; one package
for each service carries its behaviour."""

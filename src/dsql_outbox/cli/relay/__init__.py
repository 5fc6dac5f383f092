"""The relay inside a command: with signals, with HTTP endpoints and with a summary.

`daemon` runs `relay_run` with signals and the HTTP endpoints of the room `http_server`.
Their answers come from `HealthProbe` and `Health` of the publisher.
"""

"""The outbox in a Starlette application: its lifespan, its requests, its error answers.

outbox = Outbox(Database(url), sink="nats://localhost:4222?stream=EVENTS")
app = Starlette(routes=[..], lifespan=outbox.lifespan)
install_error_handlers(app)
"""

from .application import (
    PROBLEM_JSON,
    Outbox,
    install_error_handlers,
    outbox_ready,
    outbox_writer,
    readyz,
)

__all__ = [
    "PROBLEM_JSON",
    "Outbox",
    "install_error_handlers",
    "outbox_ready",
    "outbox_writer",
    "readyz",
]

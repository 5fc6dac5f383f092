"""A part of the telemetry stack that this machine cannot have."""


class MissingPart(Exception):
    """A real server is missing here; the text names it and a way to get it."""

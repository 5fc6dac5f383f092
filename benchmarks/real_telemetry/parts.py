"""A part of the telemetry stack that this machine cannot have."""


class MissingPart(Exception):
    """A real server cannot be had here; the text names it and says how to get it."""

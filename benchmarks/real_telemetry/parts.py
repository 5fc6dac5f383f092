"""A part of the telemetry stack that this machine cannot have."""


class MissingPart(Exception):  # noqa: N818 - names what is wrong
    """A real server cannot be had here; the text names it and says how to get it."""

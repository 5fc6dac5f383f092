"""A part of the telemetry stack that this machine cannot have."""


class MissingPart(Exception):  # noqa: N818 - names the fault
    """A real server is missing here; the text names it and a way to get it."""

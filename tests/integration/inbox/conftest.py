"""What the tests of the inbox share."""

from tests.support.inboxes import effects, open_inbox

__all__ = ["effects", "open_inbox"]

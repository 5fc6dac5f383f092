"""A hook that leaves out successes."""

from dsql_outbox.observability.facts import Fact


class SkippingHook:
    """A hook that skips successes, and keeps what it is told nevertheless."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def __call__(self, fact: Fact) -> None:
        """Keep a fact."""
        self.facts.append(fact)

    def skips_successes(self) -> bool:
        """As hooks of a provider that records nothing do."""
        return True


class TakingHook:
    """A hook that takes calls, and keeps what it is told."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def __call__(self, fact: Fact) -> None:
        """Keep a fact."""
        self.facts.append(fact)

    def takes_calls(self) -> bool:
        """As the hook of metrics does."""
        return True

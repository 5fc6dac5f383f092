"""The app: ``INSTALLED_APPS = [.., "dsql_outbox.django"]``."""

from importlib import import_module

from django.apps import AppConfig

LABEL = "outbox"


class OutboxConfig(AppConfig):
    """The app. It has no models: its tables are those of the outbox."""

    name = "dsql_outbox.django"
    label = LABEL
    verbose_name = "Outbox"

    def ready(self) -> None:
        """Register the system checks."""
        import_module(".checks", __package__)

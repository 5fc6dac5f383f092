"""The views of the project."""

from typing import Any

from django.db import transaction
from django.http import HttpResponse
from django.urls import path

from dsql_outbox.django import transact

from .orders import place


def placed_in_transact(_: Any) -> HttpResponse:
    """A view with a transaction of its own, which it retries."""
    return HttpResponse(transact(place).item)


@transaction.non_atomic_requests
def exempt(request: Any) -> HttpResponse:
    """The same view, outside of the transaction of its request."""
    return placed_in_transact(request)


def placed_in_atomic(_: Any) -> HttpResponse:
    """A view in the transaction of its request, or in its own."""
    with transaction.atomic():
        return HttpResponse(place().item)


urlpatterns = [
    path("transact/", placed_in_transact),
    path("exempt/", exempt),
    path("atomic/", placed_in_atomic),
]

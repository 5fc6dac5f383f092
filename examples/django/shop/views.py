import json
from uuid import UUID

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from dsql_outbox import DuplicateEvent

from .models import Product
from .orders import SoldOut, place, stock


@csrf_exempt
@require_POST
@transaction.atomic
def products(request: HttpRequest) -> JsonResponse:
    given = json.loads(request.body)
    stock(given["name"], given["stock"])
    return JsonResponse(given, status=201)


@csrf_exempt
@require_POST
@transaction.non_atomic_requests  # `place` has a transaction of its own
def orders(request: HttpRequest) -> JsonResponse:
    given = json.loads(request.body)
    try:
        left = place(UUID(given["id"]), given["product"], given["quantity"])
    except DuplicateEvent as stored:
        return JsonResponse({"id": given["id"]}, status=201 if stored.same_content else 409)
    except (SoldOut, Product.DoesNotExist):
        return JsonResponse({"error": "sold out"}, status=409)
    return JsonResponse({"id": given["id"], "left": left}, status=201)

"""A Django view that sends a notification and waits for the broker."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_POST

from kafka_notify import Notification, ProduceError, Producer, QueueFullError, config_from_env
from tests.typing.app_topology import ORDERS, TOPOLOGY, OrderShipped

producer = Producer(config_from_env(), topology=TOPOLOGY)


@require_POST
def ship(request: HttpRequest, order_id: str) -> JsonResponse:
    """Tell the customer that the order is on its way."""
    notification = Notification(
        user_id=request.POST["user_id"],
        category=ORDERS,
        channel="email",
        data=OrderShipped(order_id),
        correlation_id=request.headers.get("X-Request-Id"),
    )
    try:
        written = producer.send(notification).result(timeout=5)
    except (QueueFullError, ProduceError, TimeoutError):
        return JsonResponse({"error": "try again"}, status=503)
    return JsonResponse({"id": notification.id, "at": written.timestamp.isoformat()})

"""A FastAPI service that sends notifications without blocking its event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException

from kafka_notify import ConfigError, InvalidNotificationError, Notification, NotifyError, Producer
from tests.typing.app_topology import OTP, TOPOLOGY, OtpData

producer = Producer({"bootstrap.servers": "localhost:9092"}, topology=TOPOLOGY)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
    """Open the connections before the first request; send what is queued before the process ends."""
    try:
        await asyncio.to_thread(producer.warm_up, ["high_priority"])
    except ConfigError:
        raise
    except NotifyError as e:
        logging.getLogger(__name__).warning("notifications cannot be sent yet: %s", e)
    async with producer:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/users/{user_id}/otp")
async def send_otp(user_id: str, phone: str, code: str) -> dict[str, str]:
    """Answer once the broker has the notification."""
    try:
        notification = Notification(
            user_id=user_id, category=OTP, channel="sms", recipient=phone, data=OtpData(code)
        )
        written = await producer.asend(notification, timeout=2)
    except InvalidNotificationError as e:
        raise HTTPException(422, str(e)) from e
    except NotifyError as e:
        raise HTTPException(503, "try again") from e
    return {"id": notification.id, "partition": str(written.partition)}

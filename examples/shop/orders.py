"""The orders of a shop: an order takes from the inventory, then charges for it. Both are called by name."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import httpx
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

REVISION = os.environ.get("SHOP_REVISION", "1")
INVENTORY_URL = os.environ["INVENTORY_URL"]  # the gateway's addresses; it knows which instances are ready
PAYMENTS_URL = os.environ["PAYMENTS_URL"]


class Order(BaseModel):
    """What a customer asks for."""

    item: str
    quantity: int = Field(default=1, ge=1, le=100)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with httpx.AsyncClient(timeout=5.0) as app.state.http:
        yield


app = FastAPI(title="orders", lifespan=lifespan)
numbers = count(1)


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/orders/quote/{item}")
async def quote(item: str) -> dict[str, Any]:
    """What the item costs and how many there are; reads alone, so it may be sent again."""
    stock = await app.state.http.get(f"{INVENTORY_URL}/inventory/{item}")
    if stock.status_code == 404:
        raise HTTPException(404, f"no such item: {item}")
    fee = await app.state.http.get(f"{PAYMENTS_URL}/payments/fee")
    found, extra = stock.raise_for_status().json(), fee.raise_for_status().json()
    return {"item": item, "left": found["left"], "price": found["price"] + extra["fee"], "revision": REVISION}


@app.post("/orders", status_code=201)
async def order(wanted: Order) -> dict[str, Any]:
    """Reserve the goods, then charge; each answers 4xx when it can't."""
    taken = await app.state.http.post(f"{INVENTORY_URL}/inventory/reserve", json=wanted.model_dump())
    if taken.is_error:
        raise HTTPException(409, taken.json().get("detail", "the inventory refused"))
    paid = await app.state.http.post(f"{PAYMENTS_URL}/payments", json={"amount": taken.json()["total"]})
    if paid.is_error:
        raise HTTPException(402, "the payment was refused")
    return {"number": next(numbers), "pid": os.getpid(), "revision": REVISION, **taken.json(), **paid.json()}

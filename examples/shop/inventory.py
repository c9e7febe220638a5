"""The inventory of a shop. Each instance counts for itself: shared data is a matter for a database."""

import os
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

REVISION = os.environ.get("SHOP_REVISION", "1")
PRICES = {"apple": 60, "book": 1890, "chair": 7900}  # cents
left = dict.fromkeys(PRICES, 1_000_000)


class Reservation(BaseModel):
    """So many of an item."""

    item: str
    quantity: int = Field(default=1, ge=1, le=100)


app = FastAPI(title="inventory")


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/inventory/{item}")
async def look(item: str) -> dict[str, Any]:
    if item not in PRICES:
        raise HTTPException(404, f"no such item: {item}")
    return {"item": item, "left": left[item], "price": PRICES[item], "revision": REVISION}


@app.post("/inventory/reserve")
async def reserve(wanted: Reservation) -> dict[str, Any]:
    if left.get(wanted.item, 0) < wanted.quantity:
        raise HTTPException(409, f"not enough left of {wanted.item}")
    left[wanted.item] -= wanted.quantity
    return {"item": wanted.item, "quantity": wanted.quantity, "total": PRICES[wanted.item] * wanted.quantity}

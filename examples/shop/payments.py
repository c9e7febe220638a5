"""The payments of a shop: charges an amount. It keeps nothing; a real one would ask a bank."""

import os
import uuid
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

REVISION = os.environ.get("SHOP_REVISION", "1")
FEE = 30  # cents for each payment


class Payment(BaseModel):
    """An amount in cents."""

    amount: int = Field(gt=0)


app = FastAPI(title="payments")


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/payments/fee")
async def fee() -> dict[str, Any]:
    return {"fee": FEE, "revision": REVISION}


@app.post("/payments", status_code=201)
async def pay(payment: Payment) -> dict[str, Any]:
    return {"payment": str(uuid.uuid4()), "charged": payment.amount + FEE}

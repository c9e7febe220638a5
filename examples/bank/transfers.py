"""Transfers between banks: one transaction of two branches, in whatever mode is asked for."""

import asyncio
import os
from typing import Literal

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from unisono import client

TIMEOUT = float(os.environ.get("TRANSFER_TIMEOUT", "10"))


class Side(BaseModel):
    """An account at a bank."""

    bank: Literal["north", "south", "village"]
    account: int = 1


class Transfer(BaseModel):
    """Who pays whom how much."""

    mode: Literal["saga", "tcc", "xa"] = "tcc"
    payer: Side
    payee: Side
    amount: int = Field(gt=0, le=1_000_000)
    gid: str | None = None


app = FastAPI(title="transfers")


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/transfers", status_code=201)
async def transfer(wanted: Transfer) -> dict[str, str]:
    """Both sides or none."""
    if wanted.mode == "xa" and "village" in (wanted.payer.bank, wanted.payee.bank):
        raise HTTPException(
            422, "village has no xa: SQLite keeps no prepared transactions; tcc and saga will do"
        )
    sides = ((wanted.payer, -wanted.amount), (wanted.payee, wanted.amount))
    try:
        async with client.transaction(wanted.mode, timeout=TIMEOUT, gid=wanted.gid) as t:
            await asyncio.gather(
                *(
                    t.call(f"http://{side.bank}/{wanted.mode}", {"account": side.account, "amount": amount})
                    for side, amount in sides
                )
            )
    except client.BranchRefused as error:
        raise HTTPException(409, f"{error.gid}: {error.problem.get('detail', 'a bank said no')}") from error
    except client.Aborted as error:
        raise HTTPException(409, f"{error.gid}: {error.reason}") from error
    except client.Refused as error:
        raise HTTPException(400, str(error)) from error
    except client.InDoubt as error:
        raise HTTPException(504, f"{error.gid} may have happened: ask for it before you repeat it") from error
    return {"gid": t.gid, "status": t.status}

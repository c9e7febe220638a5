"""``unisono txn verify``: tries a participant in transactions and says what it does wrong."""

from __future__ import annotations

import json as js
from typing import Annotated, Literal

import typer

from unisono.cli import output
from unisono.cli.exits import Code, CommandFailed
from unisono.cli.options import JsonOption


def verify(
    url: Annotated[str, typer.Argument(help="Where the participant answers; the operations are appended.")],
    mode: Annotated[
        Literal["saga", "tcc", "xa"], typer.Option("--mode", help="What the participant offers.")
    ] = "saga",
    payload: Annotated[
        str, typer.Option("--payload", metavar="JSON", help="What its forward call says yes to.")
    ] = "null",
    state: Annotated[
        str | None,
        typer.Option(
            "--state-url",
            metavar="URL",
            help="Answers to GET, and changes when an effect is there: then effects are counted as well.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.1, max=300, help="For one answer.")
    ] = 5.0,
    json: JsonOption = False,
) -> None:
    """Try a participant: calls that are null, late, repeated, at once. Leaves a few effects behind."""
    from unisono.client.conformance import NotConnected, verify  # noqa: PLC0415 - HTTP is for this alone

    try:
        content = js.loads(payload)
    except ValueError as error:
        raise CommandFailed(f"--payload is not JSON: {error}", code=Code.USAGE) from error
    findings = []
    try:
        for finding in verify(url, mode, payload=content, state_url=state, timeout=timeout):
            findings.append(finding)
            if not json:
                print(
                    f"{'ok   ' if finding.ok else 'WRONG'}  {finding.case}"
                    + (finding.wrong and f": {finding.wrong}")
                )
    except ValueError as error:
        raise CommandFailed(str(error), code=Code.USAGE) from error
    except NotConnected as error:
        raise CommandFailed(str(error)) from error
    wrong = [finding for finding in findings if not finding.ok]
    if json:
        output.data(
            {
                "url": url,
                "mode": mode,
                "ok": not wrong,
                "cases": [{"case": one.case, "ok": one.ok, "wrong": one.wrong} for one in findings],
            }
        )
    if wrong:
        raise CommandFailed(f"the participant did wrong in {len(wrong)} of {len(findings)} cases")

"""A tiny language for histories, a store to record some from, and faults to plant in it."""

from __future__ import annotations

import random
from typing import Any

from unisono.evaluate.history import Operation, Outcome


def op(text: str, called: int, returned: int | None, **more: Any) -> Operation:
    """
    ``"a put x 1"``, ``"a get x 1"``, ``"a delete x"``, ``"a cas x 1 2 yes"``; without a return: unknown.

    Values are numbers; ``-`` is none.
    """
    client, action, key, *values = text.split()
    fields: dict[str, Any] = {}
    given = [None if value == "-" else int(value) for value in values if value not in ("yes", "no")]
    match action:
        case "get":
            fields["result"] = given[0] if given else None
        case "put" | "append":
            fields["value"] = given[0]
        case "cas":
            fields |= {"expected": given[0], "value": given[1], "result": values[-1] == "yes"}
    outcome = Outcome.DONE if returned is not None else Outcome.UNKNOWN
    return Operation(
        client=client,
        action=action,
        key=key,
        called=called,
        returned=returned,
        outcome=outcome,
        **fields,
        **more,
    )


class FaultyStore:
    """A register per key with revisions; does wrong what ``fault`` names, now and then."""

    def __init__(self, fault: str, chance: random.Random) -> None:
        self.fault = fault
        self.chance = chance
        self.revision = 0
        self.versions: dict[str, list[tuple[int, Any]]] = {}

    def get(self, key: str) -> tuple[Any, int]:
        """The value and its version."""
        versions = self.versions.get(key, [])
        if not versions:
            return None, 0
        back = 2 if self._wrong("stale read") and len(versions) > 1 else 1
        version, value = versions[-back]
        return value, version

    def put(self, key: str, value: Any) -> int:
        """The revision at which it happened, or seems to have happened."""
        self.revision += 1
        if not self._wrong("lost update"):
            self.versions.setdefault(key, []).append((self.revision, value))
        return self.revision

    def _wrong(self, fault: str) -> bool:
        return self.fault == fault and self.chance.random() < 0.1


def recorded(fault: str, seed: int, *, clients: int = 5, steps: int = 40, keys: int = 2) -> list[Operation]:
    """A history of clients whose calls overlap; some writes never learn what came of them."""
    chance = random.Random(seed)
    store = FaultyStore(fault, chance)
    now = 0
    history = []
    for client in range(clients):
        history += [(client, step) for step in range(steps)]
    chance.shuffle(history)
    calls: list[Operation] = []
    ready = dict.fromkeys(range(clients), 0)
    for number, (client, _) in enumerate(history):
        now += 10
        key = f"k{chance.randrange(keys)}"
        called = max(ready[client] + 1, now - chance.randrange(40))
        returned = max(now + chance.randrange(40), called)
        ready[client] = returned
        name = f"c{client}"
        common = {"client": name, "key": key, "called": min(called, now), "returned": max(returned, now)}
        kind = chance.random()
        value, version = store.get(key)
        if kind < 0.5:
            calls.append(
                Operation(action="get", result=value, version=version, revision=store.revision, **common)
            )
        elif kind < 0.6:
            done = chance.random() < 0.5  # it did happen, perhaps, and nobody knows
            if done:
                store.put(key, number)
            calls.append(Operation(action="put", value=number, outcome=Outcome.UNKNOWN, **common))
        elif kind < 0.8 and store.fault != "stale read":
            expected = value if chance.random() < 0.7 else -1
            matches = expected == value
            revision = store.put(key, number) if matches else store.revision
            calls.append(
                Operation(
                    action="cas", expected=expected, value=number, result=matches, revision=revision, **common
                )
            )
        else:
            calls.append(Operation(action="put", value=number, revision=store.put(key, number), **common))
    return calls

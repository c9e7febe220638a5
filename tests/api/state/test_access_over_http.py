"""What a service may do with the state of its application, by the prefixes that its spec names."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.state.conftest import Services, set_service
from unisono.control.records import service_key
from unisono.spec.access import Access
from unisono.store.base import Delete

CLOSED = Access(read=("prices/",), write=("orders/",))
LEASED = {"ttl_ms": 10_000}


async def close(services: Services, access: Access = CLOSED, number: int = 2) -> None:
    """Let orders do only so much from now on."""
    await set_service(services.served.store, "shop", "orders", number=number, access=access)
    await services.served.context.informer.now()


async def statuses(services: Services, *requests: tuple[str, str, Any]) -> list[int]:
    """What orders is answered."""
    found = []
    for method, path, body in requests:
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        answer = await services.orders.request(method, path, **({} if body is None else content))
        found.append(answer.status_code)
    return found


class TestKv:
    async def test_within_its_prefixes_a_service_reads_and_writes(self, services: Services) -> None:
        """What it may write it may read, too."""
        await services.payments.put("/v1/kv/prices/1", content=b"9")
        await close(services)

        assert [200] * 6 == await statuses(
            services,
            ("PUT", "/v1/kv/orders/1", b"1"),
            ("GET", "/v1/kv/orders/1", None),
            ("GET", "/v1/kv/prices/1", None),
            ("GET", "/v1/kv?prefix=orders/1", None),
            ("GET", "/v1/kv:history?key=prices/1", None),
            ("DELETE", "/v1/kv/orders/1", None),
        )

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("PUT", "/v1/kv/prices/1", b"1"),
            ("PUT", "/v1/kv/order", b"1"),
            ("DELETE", "/v1/kv/prices/1", None),
            ("GET", "/v1/kv/users/1", None),
            ("GET", "/v1/kv/users/1?consistency=eventual", None),
            ("GET", "/v1/kv/users/1?revision=1", None),
            ("GET", "/v1/kv", None),
            ("GET", "/v1/kv?prefix=price", None),
            ("GET", "/v1/kv:history?key=users/1", None),
            ("GET", "/v1/watch", None),
            ("GET", "/v1/watch?prefix=users/", None),
            ("POST", "/v1/kv:txn", {"success": [{"put": "orders/1"}, {"put": "prices/1"}]}),
            ("POST", "/v1/kv:txn", {"failure": [{"delete": "users/1"}]}),
            ("POST", "/v1/kv:txn", {"success": [{"delete": "", "prefix": True}]}),
            ("POST", "/v1/kv:txn", {"compare": [{"key": "users/1", "created": 0}]}),
        ],
    )
    async def test_beyond_them_it_is_refused_and_nothing_changes(
        self, services: Services, method: str, path: str, body: Any
    ) -> None:
        """However it asks."""
        await services.payments.put("/v1/kv/prices/1", content=b"9")
        await services.payments.put("/v1/kv/users/1", content=b"secret")
        before = (await services.payments.get("/v1/kv")).json()["entries"]
        await close(services)

        assert [403] == await statuses(services, (method, path, body))
        assert before == (await services.payments.get("/v1/kv")).json()["entries"]

    async def test_the_refusal_says_what_would_be_right(self, services: Services) -> None:
        """And where it is written."""
        await close(services)

        problem = (await services.orders.put("/v1/kv/users/1", content=b"1")).json()

        assert ("forbidden", "'users/1': the service 'orders' may write names that begin with 'orders/'") == (
            problem["code"],
            problem["detail"],
        )
        assert "access of orders" in problem["hint"]


class TestNames:
    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/v1/locks/{}:acquire", LEASED),
            ("/v1/semaphores/{}:acquire", {**LEASED, "permits": 2}),
            ("/v1/elections/{}:campaign", LEASED),
            ("/v1/barriers/{}:wait", {**LEASED, "parties": 1}),
        ],
    )
    async def test_what_is_held_goes_by_its_name(
        self, services: Services, path: str, body: dict[str, Any]
    ) -> None:
        """Holding is writing."""
        await close(services)

        assert [200, 403] == await statuses(
            services, ("POST", path.format("orders/1"), body), ("POST", path.format("prices/1"), body)
        )

    async def test_looking_at_an_election_or_a_quota_is_reading(self, services: Services) -> None:
        """Of prices it may see both and change neither."""
        await services.payments.put("/v1/quotas/prices/q", json={"size": 3})
        await close(services)

        assert [200, 200, 403, 403, 403] == await statuses(
            services,
            ("GET", "/v1/elections/prices/e:leader", None),
            ("GET", "/v1/quotas/prices/q", None),
            ("GET", "/v1/quotas/users/q", None),
            ("PUT", "/v1/quotas/prices/q", {"size": 4}),
            ("POST", "/v1/quotas/prices/q:acquire", {"amount": 1, "lease": "1", "request_id": "r"}),
        )

    async def test_timestamps_are_everybodys(self, services: Services) -> None:
        """They tell nothing."""
        await close(services, Access())

        assert [200, 200] == await statuses(
            services, ("POST", "/v1/tso", {"count": 1}), ("GET", "/v1/clock", None)
        )


class TestWhose:
    async def test_another_service_of_the_application_is_not_bound(self, services: Services) -> None:
        """Each has its own word."""
        await close(services)

        assert (await services.payments.put("/v1/kv/users/1", content=b"1")).status_code == 200

    async def test_an_operator_is_not_bound(self, services: Services) -> None:
        """The file is theirs."""
        await close(services)

        answer = await services.operator.put("/v1/kv/users/1?namespace=shop", content=b"1")
        assert answer.status_code == 200

    async def test_a_change_binds_the_next_request(self, services: Services) -> None:
        """The instance needs no restart, in either direction."""
        open_ = await statuses(services, ("PUT", "/v1/kv/users/1", b"1"))
        await close(services)
        closed = await statuses(services, ("PUT", "/v1/kv/users/1", b"1"))
        await close(services, Access(write=("users/",)), number=3)
        opened = await statuses(services, ("PUT", "/v1/kv/users/1", b"1"))

        assert ([200], [403], [200]) == (open_, closed, opened)

    async def test_a_service_that_is_no_more_may_do_nothing(self, services: Services) -> None:
        """Its token is still signed; what it stood for is gone."""
        await services.served.store.transact(success=[Delete(key=service_key("shop", "orders"))])
        await services.served.context.informer.now()

        assert [403, 403] == await statuses(
            services, ("GET", "/v1/kv/a", None), ("POST", "/v1/locks/a:acquire", LEASED)
        )

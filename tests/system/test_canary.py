"""A new revision is tried on a share of the requests: a whole node, real programs, real requests."""

from __future__ import annotations

import pytest

from tests.system.conftest import Site
from tests.system.load import Load

pytestmark = pytest.mark.system

SHOP = """
name: shop
services:
  orders:
    command: python server.py
    scale: 2
    environment: {VERSION: "1"}
    routes: [{path: /orders}]
    deploy:
      update_config:
        monitor: 500ms
        canary: {weight: 20%, monitor: 1s, success: {ratio: 99%, min_requests: 20}}
"""
BAD = SHOP.replace('{VERSION: "1"}', '{VERSION: "2", FAIL: "1"}')
GOOD = SHOP.replace('{VERSION: "1"}', '{VERSION: "2"}')


@pytest.fixture
def shop(site: Site) -> Site:
    """The shop, up and ready."""
    site.write(SHOP)
    site.run("up", "-d")
    return site


def test_a_revision_that_answers_500_rolls_itself_back(shop: Site) -> None:
    """Its process is well and no probe sees it: its requests do. Not one of the old instances went."""
    before = {instance["id"] for instance in shop.instances("orders")}
    with Load(shop.port, "/orders") as load:
        load.wait_for_more()
        shop.write(BAD)
        failed = shop.run("apply", "--yes", ok=False)
        load.wait_for_more()

    rollout = shop.client.service("shop", "orders")["rollout"]
    assert failed.code != 0
    assert rollout is not None
    assert rollout["phase"] == "rolled-back"
    assert "canary of revision 2" in rollout["reason"]
    assert "requests succeeded" in rollout["reason"]
    assert load.versions() == {"1"}
    assert {instance["id"] for instance in shop.instances("orders")} == before


def test_a_good_revision_goes_through(shop: Site) -> None:
    """Its figures are told, and no request fails because of it."""
    with Load(shop.port, "/orders") as load:
        load.wait_for_more()
        shop.write(GOOD)
        shop.run("apply", "--yes")
        load.wait_for_more()

    told = shop.run("events")
    assert load.failures == {}
    assert load.versions() == {"1", "2"}
    assert "rollout-canary-passed" in told.out
    assert "(100 %)" in told.out
    assert {instance["revision"] for instance in shop.instances("orders")} == {2}

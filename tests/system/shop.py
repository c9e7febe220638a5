"""A shop of two services, by which a whole node is tried."""

from __future__ import annotations

import urllib.request

from tests.system.conftest import LIMIT, Site

SHOP = """
name: shop
services:
  orders:
    command: python server.py
    scale: 2
    environment: {VERSION: "1"}
    deploy: {update_config: {monitor: 500ms}}
    depends_on: {payments: {condition: service_healthy}}
    routes: [{path: /orders}]
  payments:
    command: python server.py
"""


def get(site: Site, path: str = "/orders") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{site.port}{path}", timeout=LIMIT) as answer:
        return answer.read().decode()


def pids(site: Site, service: str = "orders") -> set[int | None]:
    return {instance["pid"] for instance in site.instances(service)}

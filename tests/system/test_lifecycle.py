"""A file of services becomes served requests, and stays so: a whole node, by its command line."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import urllib.request
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.system.conftest import LIMIT, Site, kill, wait_until
from tests.system.load import Load
from tests.system.shop import SHOP, get, pids
from unisono.cli.up import take_down
from unisono.client import NodeClient, Refused
from unisono.client.views import ApplicationView

pytestmark = pytest.mark.system


@pytest.fixture
def shop(site: Site) -> Site:
    """The shop, up and ready."""
    site.write(SHOP)
    site.run("up", "-d")
    return site


def phase(site: Site) -> str | None:
    rollout = site.client.service("shop", "orders")["rollout"]
    return rollout["phase"] if rollout else None


def test_up_serves_requests(shop: Site) -> None:
    """`up -d` returns when requests are answered; a service sees the one that it depends on."""
    version, pid, payments = get(shop).split()

    assert version == "1"
    assert int(pid) in pids(shop)
    with urllib.request.urlopen(payments, timeout=LIMIT) as answer:
        assert int(answer.read().split()[1]) in pids(shop, "payments")


def test_down_leaves_no_process(shop: Site) -> None:
    """After `down` no process is left: instances, gateway, log process and node are gone."""
    before = shop.processes()
    shop.run("down")

    assert len(before) == 6  # three instances, gateway, log process, node
    assert shop.processes() == []


def test_down_leaves_no_socket(shop: Site) -> None:
    """After `down` nothing in the state folder pretends to be answered."""
    before = [path.name for path in shop.state.iterdir() if path.is_socket()]
    shop.run("down")

    assert {"api.sock", "services.sock", "behind.sock"} <= set(before)
    assert [path.name for path in shop.state.iterdir() if path.is_socket()] == []


def test_down_where_all_is_gone_before_it_looks(site: Site) -> None:
    """An application that goes faster than it can be watched is down, and not unknown."""

    class LooksLate(NodeClient):
        def remove(self, name: str) -> None:
            super().remove(name)
            wait_until(lambda: not self.applications(), "the application is gone")

    site.write(SHOP)
    site.start("node")
    site.wait_for_node()
    site.run("up", "-d")

    take_down(LooksLate(site.state / "api.sock", timeout=LIMIT), "shop")


def test_in_a_folder_with_a_long_path(site: Site) -> None:
    """The gateway's socket would just fit there, but not the one at which its successor asks."""
    site.state = site.state.with_name("s" * (94 - len(str(site.state.parent)) - 1))
    site.write(SHOP)
    site.run("up", "-d")

    assert get(site).startswith("1 ")


def test_ps_tells_what_runs(shop: Site) -> None:
    """`ps` shows each instance with its state; with --json for programs."""
    told = shop.run("ps")
    (view,) = shop.run("ps", "--json").json["applications"]

    assert told.out.splitlines()[0].split()[:3] == ["NAME", "STATE", "AGE"]
    assert "ready 2/2" in told.out
    assert f"http://127.0.0.1:{shop.port}/orders" in told.out
    assert view["state"] == "ready"
    assert all(len(service["instances"]) == service["replicas"] for service in view["services"])


def test_ps_tells_why_one_is_down(site: Site) -> None:
    """`ps` says why an instance is down and when it is tried next."""
    site.write(
        "name: shop\nservices:\n"
        "  orders: {command: python server.py, routes: [{path: /orders}], environment: {BROKEN: '1'}}\n"
    )
    failed = site.run("up", "-d", "--wait-timeout", "2", ok=False)
    site.wait_for(lambda view: view["services"][0]["instances"][0]["phase"] == "backoff")
    told = site.run("ps")

    assert failed.code == 1
    assert "not ready after 2 seconds" in failed.err
    assert "broken on purpose" in failed.err
    assert "exit" in told.out
    assert "broken on purpose" in told.out


def test_worker_that_ends_at_once_is_not_ready(site: Site) -> None:
    """A worker, which nobody probes, is not taken for ready when it ends as soon as it runs."""
    site.write("name: shop\nservices:\n  orders: {command: python server.py, environment: {BROKEN: '1'}}\n")
    failed = site.run("up", "-d", "--wait-timeout", "3", ok=False)

    assert failed.code == 1
    assert "not ready after 3 seconds" in failed.err
    assert "broken on purpose" in failed.err


def test_task_runs_to_its_end(site: Site) -> None:
    """A service that is not to be restarted is done once it ended with 0, and failed otherwise."""
    task = "name: shop\nservices:\n  task: {{command: [python, -c, 'exit({})'], restart: 'no'}}\n"
    site.write(task.format(0))
    done = site.run("up", "-d")
    site.write(task.format(3))
    failed = site.run("up", "-d", ok=False)

    assert done.code == 0
    assert failed.code == 1
    assert "exited with 3" in failed.err


def test_logs(shop: Site) -> None:
    """`logs` prints what instances wrote, of one service if wished."""
    told = shop.run("logs", "orders")
    last = shop.run("logs", "--tail", "1", "--json")

    assert told.out.count("version 1 listens") == 2
    assert all(line.startswith("orders-") for line in told.out.splitlines())
    assert len(last.out.splitlines()) == 1
    assert last.json["text"] == "version 1 listens"


def test_logs_of_an_instance_that_never_was(shop: Site) -> None:
    """Those that there are, also of one that is gone, are told instead of nothing."""
    [gone, *_] = shop.instances("orders")
    shop.run("restart", "orders", "--wait-timeout", f"{LIMIT:g}")
    wrong = shop.run("logs", "--instance", gone["id"] + "x", ok=False)

    assert wrong.code == 4
    assert f"nor lines of one that is gone; did you mean {gone['id']}?" in wrong.err
    assert "listens" in shop.run("logs", "--instance", gone["id"]).out


def test_logs_follow(shop: Site) -> None:
    """`logs -f --tail 0` shows nothing of what was, and new instances' lines as they come."""
    old = set(shop.run("logs", "orders").out.splitlines(keepends=True))
    process = shop.start("logs", "-f", "--tail", "0", "orders")
    assert process.stdout is not None
    following = threading.Event()

    def start_instances() -> None:  # until one of them starts after the command has begun to follow
        for replicas in itertools.cycle((3, 2)):
            shop.run("scale", f"orders={replicas}")
            if following.wait(0.1):
                return

    scaling = threading.Thread(target=start_instances)
    scaling.start()
    new = process.stdout.readline()
    following.set()
    scaling.join()

    assert new.endswith("| version 1 listens\n")
    assert new not in old


def test_events(shop: Site) -> None:
    """`events` tells what happened, in order."""
    kinds = [event.split()[2] for event in shop.run("events", "-p", "shop").out.splitlines()]

    assert kinds[0] == "application-applied"
    assert kinds.index("instance-started") < kinds.index("instance-ready") < kinds.index("service-ready")


def test_scale(shop: Site) -> None:
    """`scale` returns when the number is as wished; idle instances go without a failed request."""
    with Load(shop.port, "/orders") as load:
        shop.run("scale", "orders=4")
        many = len(shop.instances("orders"))
        load.wait_for_more()
        shop.run("scale", "orders=1")
        shop.wait_for(lambda view: len(view["services"][0]["instances"]) == 1)

    assert many == 4
    assert load.failures == {}


def test_rolling_apply(shop: Site) -> None:
    """A new revision replaces all instances under load, and no request fails."""
    old = pids(shop)
    with Load(shop.port, "/orders") as load:
        load.wait_for_more()
        shop.write(SHOP.replace('VERSION: "1"', 'VERSION: "2"'))
        done = shop.run("apply", "--yes")
        load.wait_for_more()

    assert load.failures == {}
    assert load.versions() == {"1", "2"}
    assert not old & pids(shop)
    assert "environment.VERSION: '1' → '2'" in done.err


def test_bad_revision_rolls_back(shop: Site) -> None:
    """A revision that does not get ready rolls itself back under load, and no request fails."""
    before = pids(shop)
    with Load(shop.port, "/orders") as load:
        load.wait_for_more()
        shop.write(SHOP.replace('{VERSION: "1"}', '{VERSION: "2", BROKEN: "1"}'))
        failed = shop.run("apply", "--yes", ok=False)
        shop.wait_for(lambda view: view["services"][0]["settled"])
        load.wait_for_more()

    assert failed.code == 1
    assert "rolled back" in failed.err
    assert load.failures == {}
    assert load.versions() == {"1"}
    assert phase(shop) == "rolled-back"
    assert pids(shop) & before


def test_undo(shop: Site) -> None:
    """`rollout undo` brings the revision before back, and `rollout status` tells of it."""
    shop.write(SHOP.replace('VERSION: "1"', 'VERSION: "2"'))
    shop.run("apply", "--yes")
    with Load(shop.port, "/orders") as load:
        load.wait_for_more()
        shop.run("rollout", "undo", "orders")
        load.wait_for_more()
    status = shop.run("rollout", "status", "orders", "--json").json["rollouts"][0]

    assert load.failures == {}
    assert get(shop).split()[0] == "1"
    assert (status["revision"], status["rollout"]["phase"]) == (1, "done")


def test_restart(shop: Site) -> None:
    """`restart` replaces all instances, and no request fails."""
    old = pids(shop)
    with Load(shop.port, "/orders") as load:
        load.wait_for_more()
        shop.run("restart", "orders")
        load.wait_for_more()

    assert load.failures == {}
    assert not old & pids(shop)


def test_killed_instance_is_replaced(shop: Site) -> None:
    """An instance that is killed under load fails no request, and is started again."""
    (victim, *_) = shop.instances("orders")
    assert victim["pid"] is not None
    with Load(shop.port, "/orders") as load:
        load.wait_for_more()
        kill(victim["pid"])
        shop.wait_for(_restarted)
        shop.wait_for(lambda view: view["services"][0]["ready"] == 2)
        load.wait_for_more()

    assert load.failures == {}
    assert victim["pid"] not in pids(shop)


def _restarted(view: ApplicationView) -> bool:
    return any(one["restarts"] > 0 for one in view["services"][0]["instances"])


def test_killed_node_is_replaced(shop: Site) -> None:
    """While the node is dead requests are answered; the next node adopts the same processes."""
    before = pids(shop)
    with Load(shop.port, "/orders") as load:
        kill(shop.client.node()["pid"])
        load.wait_for_more()
        shop.run("up", "-d")
        load.wait_for_more()

    assert load.failures == {}
    assert pids(shop) == before
    told = shop.run("events").out
    assert "instance-adopted" in told
    assert told.count("node-started") == 2


def test_killed_node_can_be_taken_down(shop: Site) -> None:
    """`down` after the node's death ends what it left."""
    kill(shop.client.node()["pid"])
    shop.run("down", "-p", "shop")

    assert shop.processes() == []


def test_up_fails_where_no_gateway_can_start(site: Site) -> None:
    """Its instances are ready, but nobody can reach them; once one can start, all is well."""
    obstacle = site.state / "gateway.sock.new"
    obstacle.mkdir(parents=True, mode=0o700)
    site.state.chmod(0o700)
    site.write(SHOP)

    failed = site.run("up", "-d", ok=False)

    assert failed.code == 1
    assert "shop runs, but no gateway that would serve it: it can't start: gateway: " in failed.err
    assert "not running" in site.run("node", "status").out
    assert _told_of_gateways(site) == ["gateway-failed"]
    obstacle.rmdir()
    wait_until(lambda: site.client.node()["gateway"]["pid"] is not None, "a gateway")
    site.run("up", "-d")
    assert get(site).startswith("1 ")


def test_up_fails_where_the_gateway_can_not_listen(site: Site) -> None:
    """Another program took the published port while neither node nor gateway ran."""
    port = free_port()
    site.write(f"name: shop\nservices:\n  web: {{command: python server.py, ports: ['{port}:{port}']}}\n")
    site.run("up", "-d")
    kill(site.client.node()["pid"])
    [gateway] = [process for process in site.processes() if "unisono.gateway" in process.cmdline()]
    gateway.kill()
    gateway.wait(LIMIT)

    with socket.create_server(("127.0.0.1", port)):
        failed = site.run("up", "-d", ok=False)
        status = site.run("node", "status").out

    assert failed.code == 1
    assert f"shop runs, but the gateway can't listen at 127.0.0.1:{port}: " in failed.err
    assert f"unbound   127.0.0.1:{port}: " in status
    wait_until(lambda: not site.client.node()["gateway"]["unbound"], "the port to be had")
    site.run("up", "-d")


def _told_of_gateways(site: Site) -> list[str]:
    kinds = (event["kind"] for event in site.client.events())
    return [kind for kind in kinds if kind.startswith("gateway-")]


def test_killed_gateway_is_replaced(shop: Site) -> None:
    """A gateway that is killed is started again, and both are told; no instance is touched."""
    before = pids(shop)
    gateway = shop.client.node()["gateway"]["pid"]
    assert gateway is not None
    kill(gateway)
    wait_until(lambda: shop.client.node()["gateway"]["pid"] not in (None, gateway), "a new gateway")
    wait_until(lambda: _told_of_gateways(shop)[-2:] == ["gateway-exited", "gateway-started"], "both are told")

    assert int(get(shop).split()[1]) in pids(shop)
    assert pids(shop) == before


def test_tcp_api_asks_for_the_token(site: Site) -> None:
    """On TCP the API lets in who knows the token, which was in no one's arguments."""
    port = free_port()
    site.start("node", "--api", f"127.0.0.1:{port}", UNISONO_API_TOKEN="s3cret")
    site.wait_for_node()
    with pytest.raises(Refused) as refused:
        NodeClient(address=f"127.0.0.1:{port}").node()
    known = NodeClient(address=f"127.0.0.1:{port}", token="s3cret").node()

    assert refused.value.status == 401
    assert known["api"] == f"127.0.0.1:{port}"
    assert not any("s3cret" in word for process in site.processes() for word in process.cmdline())


def test_two_applications(shop: Site) -> None:
    """One node serves several applications; the node that `up` started ends with the last one."""
    (shop.folder / "other.yaml").write_text(
        "name: other\nservices:\n  web: {command: python server.py, routes: [{path: /web}]}\n"
    )
    shop.run("up", "-d", "-f", "other.yaml")
    both = (get(shop, "/orders"), get(shop, "/web"))
    shop.run("down", "-p", "shop")
    left = [one["name"] for one in shop.client.applications()]
    shop.run("down", "-p", "other")

    assert all(text.startswith("1 ") for text in both)
    assert left == ["other"]
    assert shop.processes() == []


def test_terminal_is_left_alone_by_pipes(shop: Site) -> None:
    """What is piped has no colour."""
    told = [shop.run(*words) for words in (["ps"], ["logs"], ["events"], ["rollout", "status"])]

    assert not any("\x1b" in result.out + result.err for result in told)


def test_completion(shop: Site) -> None:
    """The shell completes names of services from the node."""
    told = shop.run(
        ok=False,
        _UNISONO_COMPLETE="complete_bash",
        _TYPER_COMPLETE_ARGS="unisono logs or",
        COMP_WORDS="unisono logs or",
        COMP_CWORD="2",
    )

    assert "orders" in told.out.split()


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/proc/self/autogroup").exists(),
    reason="to lower a nice value takes root, and a kernel with autogroups",
)
def test_node_and_gateway_go_before_instances(shop: Site) -> None:
    """Where the kernel shares the processor out by session, node and gateway have precedence, no one else."""
    node, instances = shop.client.node(), pids(shop)

    def nice(pid: int | None) -> int:
        return int(Path(f"/proc/{pid}/autogroup").read_text().split()[-1])

    assert [nice(node["pid"]), nice(node["gateway"]["pid"])] == [-10, -10]
    assert {nice(pid) for pid in instances} == {0}

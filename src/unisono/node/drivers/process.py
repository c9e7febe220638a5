"""
The driver that runs instances as plain processes of this machine.

Each instance leads a session of its own, writes into its own pipes and knows nothing of the node, so it
outlives it. A restarted node finds it by what its status says (pid, start time, boot), or, when it was
started but never written down, by the marks in its environment.

What a program needs to start is :mod:`.startable`'s, its variables and its user are :mod:`.surroundings`',
limits :mod:`unisono.node.cgroups`', ports :mod:`unisono.node.ports`'.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from unisono.control.records import Instance, Status
from unisono.node import processes
from unisono.node.cgroups import Cgroups, Group
from unisono.node.drivers import startable, surroundings
from unisono.node.drivers.base import CannotStart, Ended, Order, Orphan, Running
from unisono.node.identity import Identities, Identity
from unisono.node.paths import StateFolder
from unisono.node.pipes import Pipes
from unisono.node.ports import NoPort, Ports
from unisono.spec.model import Resources, ServiceSpec

_HOLD_SECONDS = 2.0  # for the log process to open the pipes of a new instance
_EMPTYING_TRIES = 20  # to remove a control group; the next start of the node removes what is left then
_SWEEP_SECONDS = 0.05  # ends within this time are cleaned up after together: one look at all processes


@dataclass
class _Process:
    """A running instance, as the driver holds it."""

    running: Running
    handle: processes.Handle
    group: Group
    asked_to_stop: int = 0  # the signal that asked it to, or 0
    asked: set[int] = field(default_factory=set)  # those that it started and that were asked, too


class ProcessDriver:
    """Implements :class:`unisono.node.drivers.base.Driver`. Must be made and used in one loop."""

    def __init__(self, node_id: str, folder: StateFolder, ports: Ports, pipes: Pipes) -> None:
        self._node_id = node_id
        self._folder = folder
        self._ports = ports
        self._pipes = pipes
        self._identities = Identities.kept_in(folder.identity_secret)
        self._cgroups = Cgroups.of_this_process()
        self._file_limit = processes.raise_file_limit()
        self._processes: dict[int, _Process] = {}
        self._held: set[int] = set()
        self._sweeping: set[tuple[int, int]] = set()
        self._emptying: list[tuple[Group, int]] = []
        self._sweep_timer: asyncio.TimerHandle | None = None
        digest = hashlib.sha256(os.fsencode(folder.path)).hexdigest()[:8]
        self._group_prefix = f"unisono-{digest}-"
        # One start per turn of the loop: a start holds the loop for a millisecond or two, and hundreds in a
        # row would hold up everything else.
        self._turn = asyncio.Lock()

    async def spawn(self, order: Order) -> Running:
        """Start the process; see :class:`unisono.node.drivers.base.Driver`."""
        async with self._turn:
            running = self._spawn(order)
            await asyncio.sleep(0)
            return running

    def _spawn(self, order: Order) -> Running:
        instance, spec = order.instance, order.spec
        command = instance.command if instance.job else spec.command
        if not command:
            raise CannotStart("cannot start: the service has no command")
        account = surroundings.account_of(spec.user)
        port = self._take_port(spec, job=instance.job)
        try:
            environment = self._environment(order, port)
            argv = [surroundings.with_port(part, port) for part in command]
            argv[0] = startable.executable(argv[0], spec.working_dir, environment)
            group = Group()
            if spec.resources != Resources():
                name = self._group_name(instance.application, instance.id, order.generation)
                group = self._cgroups.set_up(name, spec.resources)
            pid = self._popen(
                instance,
                argv=argv,
                environment=environment,
                cwd=spec.working_dir,
                account=account,
                group=group,
            )
        except BaseException:
            if port is not None:
                self._ports.give_back(port)
            raise
        group.limit_data(pid)
        try:
            handle = processes.Handle(pid)
        except OSError as error:  # out of file descriptors: what can't be watched must not run
            processes.kill_group(pid)
            raise CannotStart(f"cannot start: {error.strerror}") from error
        started = processes.read_stat(pid)
        if started is None:
            raise AssertionError(f"process {pid} is not reaped and yet not in /proc")
        running = Running(
            instance=instance.id,
            generation=order.generation,
            pid=pid,
            start_time=started.start_time,
            boot_id=processes.boot_id(),
            port=port,
            warning=group.warning,
        )
        self._processes[pid] = _Process(running, handle, group)
        return running

    def _popen(
        self,
        instance: Instance,
        *,
        argv: list[str],
        environment: dict[str, str],
        cwd: str,
        account: dict[str, Any],
        group: Group,
    ) -> int:
        fds: list[int] = []
        try:
            out, err = self._pipes.open(
                instance.application, instance.service, instance.id, owner=account.get("user")
            )
            fds += [out, err]
            held = self._pipes.hold(instance.application, instance.service, instance.id)
            self._held.update(held)
            for fd in held:
                asyncio.get_running_loop().call_later(_HOLD_SECONDS, self._let_go, fd)
            process = subprocess.Popen(
                startable.entering(group, account, argv) if group.folders else argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=cwd,
                env=environment,
                start_new_session=True,
                **({} if group.folders else account),
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise CannotStart(startable.reason(error, argv[0], cwd)) from error
        finally:
            for fd in fds:
                os.close(fd)
        processes.limit_files(process.pid, self._file_limit)
        # Its end is ours to see and to reap, by pidfd; this keeps subprocess from doing it behind our back.
        process.returncode = 0
        return process.pid

    def adopt(self, instance: Instance, status: Status) -> Running | None:
        """
        Take over the process that the status names, if it is that very one and it runs.

        A state folder that was copied names processes of the one that it was copied from: those stay there.
        """
        if status.pid is None or status.start_time is None or status.boot_id != processes.boot_id():
            return None
        place = processes.environment(status.pid).get("UNISONO_STATE", "")
        if place not in ("", str(self._folder.path)) and self._folder.is_copy_of(place, self._node_id):
            return None
        running = Running(
            instance=instance.id,
            generation=status.generation,
            pid=status.pid,
            start_time=status.start_time,
            boot_id=status.boot_id,
            port=status.port,
        )
        return self._adopt(running, instance.application)

    def orphans(self, known: Collection[int]) -> list[Orphan]:
        """
        Leaders of sessions that bear this node's marks, beside those whose pid is ``known``, oldest first.

        Marks are inherited: what an instance starts in a session of its own bears the same, and is younger.
        """
        found = []
        for pid in processes.all_pids():
            stat = processes.read_stat(pid)
            if stat is None or stat.session != pid or stat.state in "ZX" or pid in known:
                continue
            marks = processes.environment(pid)
            if (marks.get("UNISONO_STATE"), marks.get("UNISONO_NODE")) != (
                str(self._folder.path),
                self._node_id,
            ):
                continue
            generation, port = marks.get("UNISONO_GENERATION", ""), marks.get("PORT", "")
            if not generation.isdecimal():
                continue
            running = Running(
                instance=marks.get("UNISONO_INSTANCE", ""),
                generation=int(generation),
                pid=pid,
                start_time=stat.start_time,
                boot_id=processes.boot_id(),
                port=int(port) if port.isdecimal() else None,
            )
            application, service = marks.get("UNISONO_APPLICATION", ""), marks.get("UNISONO_SERVICE", "")
            found.append(Orphan(application=application, service=service, running=running))
        return sorted(found, key=lambda orphan: orphan.running.start_time)

    def take(self, orphan: Orphan) -> Running | None:
        """Adopt an orphan; see :class:`unisono.node.drivers.base.Driver`."""
        return self._adopt(orphan.running, orphan.application)

    def _adopt(self, running: Running, application: str) -> Running | None:
        try:
            handle = processes.Handle(running.pid)
        except ProcessLookupError:
            return None
        # Looked at after the handle was taken: from here on the pid can't come to mean another process.
        if processes.start_time(running.pid) != running.start_time:
            handle.close()
            return None
        if running.port is not None:
            self._ports.keep(running.port)
        group = self._cgroups.find(self._group_name(application, running.instance, running.generation))
        self._processes[running.pid] = _Process(running, handle, group)
        return running

    def signal(self, running: Running, name: str) -> None:
        """Send the signal to the process itself; a shell in front of the program is seen to in ``ended``."""
        if process := self._processes.get(running.pid):
            process.asked_to_stop = signal.Signals[name]
            process.handle.send(process.asked_to_stop)

    def kill(self, running: Running) -> None:
        """Kill the process, its group and its session."""
        if process := self._processes.get(running.pid):
            process.handle.send(signal.SIGKILL)
        identity = (running.pid, running.start_time)
        for pid in processes.members([identity]).get(running.pid, []):
            processes.send(pid, signal.SIGKILL)

    async def ended(self, running: Running) -> Ended:
        """Wait for the end; see :class:`unisono.node.drivers.base.Driver`."""
        process = self._processes[running.pid]
        await process.handle.ended()
        if process.asked_to_stop:
            await self._others_ended(process)
        stat = processes.read_stat(running.pid)
        if stat is not None and stat.start_time == running.start_time:
            # A zombie still: until it is reaped its number can't come to mean another group.
            processes.kill_group(running.pid)
        code = process.handle.reap()
        del self._processes[running.pid]
        process.handle.close()
        if running.port is not None:
            self._ports.give_back(running.port)
        oom = code == -signal.SIGKILL and process.group.oom_killed()
        self._sweep_soon(running, process.group)
        return Ended(code=code, detail="over its memory limit" if oom else "")

    async def _others_ended(self, process: _Process) -> None:
        """
        Ask what the instance started to stop, too, and wait for it.

        A shell in front of the program dies of the signal without passing it on; killing the program then
        would deny it the time to stop that it was promised. The kill that ends that time ends this wait.
        """
        running = process.running
        while others := processes.members([(running.pid, running.start_time)]).get(running.pid):
            waits = []
            for pid in others:
                with suppress(ProcessLookupError):
                    handle = processes.Handle(pid)
                    waits.append(handle)
                    if pid not in process.asked:
                        process.asked.add(pid)
                        handle.send(process.asked_to_stop)
            try:
                await asyncio.gather(*(handle.ended() for handle in waits))
            finally:
                for handle in waits:
                    handle.close()

    def _sweep_soon(self, running: Running, group: Group) -> None:
        self._sweeping.add((running.pid, running.start_time))
        if group.folders:
            self._emptying.append((group, _EMPTYING_TRIES))
        if self._sweep_timer is None:
            self._sweep_timer = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Kill what ended instances left in their sessions, and remove their empty control groups."""
        self._sweep_timer = None
        left = processes.members(self._sweeping)
        for pids in left.values():
            for pid in pids:
                processes.send(pid, signal.SIGKILL)
        self._sweeping.clear()
        # What was killed this moment may still be in its group: look again, as long as that bears fruit.
        self._emptying = [(group, tries - 1) for group, tries in self._emptying if not group.remove()]
        self._emptying = [(group, tries) for group, tries in self._emptying if tries > 0]
        if self._emptying:
            self._sweep_timer = asyncio.get_running_loop().call_later(10 * _SWEEP_SECONDS, self._sweep)

    def clean(self) -> None:
        """Remove the empty control groups of earlier runs; to be called when all that runs is adopted."""
        self._cgroups.remove_empty(self._group_prefix)

    def address(self, running: Running, host: str) -> str | None:
        """Where the process answers."""
        return None if running.port is None else f"{host}:{running.port}"

    def forget(self, application: str, service: str, instance: str) -> None:
        """Remove the pipes."""
        self._pipes.remove(application, service, instance)

    async def close(self) -> None:
        """Let go of all handles; every process goes on."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep()
            if self._sweep_timer is not None:
                self._sweep_timer.cancel()
        for fd in list(self._held):
            self._let_go(fd)
        for process in self._processes.values():
            process.handle.close()
        self._processes.clear()

    def _let_go(self, fd: int) -> None:
        if fd in self._held:
            self._held.remove(fd)
            os.close(fd)

    def _group_name(self, application: str, instance: str, generation: int) -> str:
        # Each run has its own, so that removing the last one's can't take away that of the next.
        return f"{self._group_prefix}{application}-{instance}-{generation}"

    def _take_port(self, spec: ServiceSpec, *, job: bool) -> int | None:
        mentions = [*spec.command, *spec.environment.values()]
        wanted = not job and (
            spec.serves
            or spec.healthcheck.kind in {"http", "tcp"}
            or any("{port}" in text for text in mentions)
        )
        try:
            if spec.port is not None and not job:
                self._ports.take_fixed(spec.port)
                return spec.port
            return self._ports.take() if wanted else None
        except NoPort as error:
            raise CannotStart(f"cannot start: {error}") from error

    def _environment(self, order: Order, port: int | None) -> dict[str, str]:
        """What the instance sees: what all programs of its service see, and then ours, which wins."""
        instance, spec = order.instance, order.spec
        marks = {
            "UNISONO_NODE": self._node_id,
            "UNISONO_STATE": str(self._folder.path),
            "UNISONO_APPLICATION": instance.application,
            "UNISONO_SERVICE": instance.service,
            "UNISONO_INSTANCE": instance.id,
            "UNISONO_GENERATION": str(order.generation),
            "UNISONO_REVISION": str(instance.revision),
            "UNISONO_API": f"unix:{self._folder.services_socket}",
            "UNISONO_TOKEN": self._identities.make(
                Identity(instance.application, instance.service, instance.id)
            ),
        }
        if spec.shared:
            application = instance.application
            marks["UNISONO_SHARED"] = json.dumps(
                {t.prefix: str(self._folder.shared_table(application, t.prefix)) for t in spec.shared}
            )
        # PYTHONUNBUFFERED: else Python holds back what it prints into a pipe until there are 8 KiB of it.
        return {"PYTHONUNBUFFERED": "1", **surroundings.variables(spec, order.links, port), **marks}

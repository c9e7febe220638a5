"""What holds of every life, whatever happens in whatever order: a machine against a made-up world."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from unisono.control.records import Goal, Phase, Status
from unisono.node import messages as m
from unisono.node.drivers.base import Running
from unisono.node.life import ALIVE, Context, Life, Stage, check_invariants
from unisono.node.lifecycle import TRANSITIONS, adopted, step
from unisono.spec.model import HealthCheck, Restart, ServiceSpec

SPECS = st.builds(
    ServiceSpec,
    name=st.just("web"),
    command=st.just(("server",)),
    serves=st.booleans(),
    stop_signal=st.sampled_from(["SIGTERM", "SIGKILL"]),
    restart=st.builds(
        Restart,
        policy=st.sampled_from(["always", "on-failure", "no"]),
        max_attempts=st.sampled_from([None, 0, 3]),
    ),
    healthcheck=st.builds(
        HealthCheck, kind=st.sampled_from(["http", "command", "listen", "none"]), start_period=st.just(1.0)
    ),
)


@dataclass
class Universe:
    """What the machine's instructions bring about, checked against what must hold."""

    spec: ServiceSpec
    life: Life = field(default_factory=Life)
    now: float = 1000.0
    rng: Random = field(default_factory=lambda: Random(7))
    process: Running | None = None
    signalled: bool = False
    in_table: bool = False
    had_requests: bool = False
    drained: bool = False
    spawning: int | None = None
    listening: int | None = None
    probing: int | None = None
    draining: int | None = None
    timer: int | None = None

    def context(self) -> Context:
        return Context(now=self.now, rng=self.rng, spec=self.spec)

    def feed(self, event: m.Event) -> None:
        self.life, instructions = step(self.life, event, self.context())
        self.follow(instructions)

    def follow(self, instructions: list[m.Instruction]) -> None:
        for instruction in instructions:
            self.obey(instruction)
        check_invariants(self.life)
        assert (self.life.running is None) == (self.process is None)

    def obey(self, instruction: m.Instruction) -> None:
        match instruction:
            case m.Spawn(generation=generation):
                assert self.process is None, "two processes for one instance"
                assert self.spawning is None, "two starts at once"
                self.spawning = generation
            case m.AwaitListening(generation=generation):
                self.listening = generation
            case m.Probe(generation=generation):
                self.listening, self.probing = None, generation
            case m.StopProbing():
                self.listening = self.probing = None
            case m.Publish(running=running):
                assert running == self.process, "a target without its process"
                self.draining = None
                self.in_table = self.had_requests = True
                self.drained = False
            case m.Withdraw():
                self.in_table = False
            case m.Drain(token=token):
                self.in_table = False
                self.draining = token
            case m.Signal() | m.Kill():
                assert self.process is not None, "a signal to nobody"
                killing = self.life.goal is Goal.KILL or self.signalled
                assert not self.in_table, "signalled while in the table"
                assert not self.had_requests or self.drained or killing, "signalled before it was drained"
                self.signalled = True
            case m.SetTimer(token=token):
                self.timer = token

    def possible(self) -> list[str]:
        """The events that the world could bring about now."""
        names = ["run", "stop", "kill", "left-alone", "stale", "wait"]
        names += ["spawned", "spawn-failed"] if self.spawning else []
        names += ["exit-0", "exit-1", "suspected", "ejected", "returned"] if self.process else []
        names += ["listening"] if self.listening else []
        names += ["probe-ok", "probe-failed"] if self.probing else []
        names += ["drained"] if self.draining else []
        names += ["timer"] if self.timer else []
        return names

    def happen(self, name: str) -> None:
        getattr(self, "_" + name.replace("-", "_"))()

    def _run(self) -> None:
        self.feed(m.GoalChanged(goal=Goal.RUN))

    def _stop(self) -> None:
        self.feed(m.GoalChanged(goal=Goal.STOP))

    def _kill(self) -> None:
        self.feed(m.GoalChanged(goal=Goal.KILL))

    def _left_alone(self) -> None:
        self.feed(m.LeftAlone())

    def _wait(self) -> None:
        self.now += 3.0

    def _stale(self) -> None:
        """News of what is long gone."""
        before = self.life
        for event in (
            m.Exited(generation=-1, code=1),
            m.Listening(generation=-1),
            m.ProbeOk(generation=-1),
            m.ProbeFailed(generation=-1, reason="late"),
            m.Suspected(generation=-1, reason="late", ejected=True),
            m.Returned(generation=-1),
            m.Drained(token=-1, in_flight=0),
            m.Timer(token=-1),
        ):
            self.feed(event)
        assert self.life == before

    def _spawned(self) -> None:
        assert self.spawning is not None
        running = Running(
            instance="web-1", generation=self.spawning, pid=9, start_time=9, boot_id="b", port=21000
        )
        self.spawning, self.process = None, running
        self.signalled = self.had_requests = self.drained = False
        self.feed(m.Spawned(running=running))

    def _spawn_failed(self) -> None:
        self.spawning = None
        self.feed(m.SpawnFailed(reason="cannot start"))

    def _exit_0(self) -> None:
        self._exit(0)

    def _exit_1(self) -> None:
        self._exit(1)

    def _exit(self, code: int) -> None:
        assert self.process is not None
        generation = self.process.generation
        self.process = None
        self.feed(m.Exited(generation=generation, code=code))
        assert not self.in_table, "a target without its process"

    def _listening(self) -> None:
        assert self.listening is not None
        generation, self.listening = self.listening, None
        self.feed(m.Listening(generation=generation))

    def _probe_ok(self) -> None:
        assert self.probing is not None
        generation, self.probing = self.probing, None
        self.feed(m.ProbeOk(generation=generation))

    def _probe_failed(self) -> None:
        assert self.probing is not None
        generation, self.probing = self.probing, None
        self.feed(m.ProbeFailed(generation=generation, reason="503"))

    def _suspected(self) -> None:
        self._hear(m.Suspected(generation=self.life.generation, reason="refused"))

    def _ejected(self) -> None:
        self._hear(m.Suspected(generation=self.life.generation, reason="5 failures", ejected=True))

    def _returned(self) -> None:
        self._hear(m.Returned(generation=self.life.generation))

    def _hear(self, word: m.Event) -> None:
        """The gateway's word takes nobody out of the table and ends nobody: probes do."""
        before = (self.life.stage, self.in_table, self.signalled)
        self.feed(word)
        assert before == (self.life.stage, self.in_table, self.signalled)

    def _drained(self) -> None:
        assert self.draining is not None
        token, self.draining = self.draining, None
        self.drained = True
        self.feed(m.Drained(token=token, in_flight=0))

    def _timer(self) -> None:
        assert self.timer is not None
        token, self.timer = self.timer, None
        self.feed(m.Timer(token=token))

    def settle(self) -> None:
        """From now on the world is kind: starts succeed, probes are well, processes obey."""
        for _ in range(20):
            kind = ("spawned", "listening", "probe-ok", "drained", "timer")
            ready = self.life.stage is Stage.READY
            possible = [name for name in kind if name in self.possible()]
            if self.signalled and self.process:
                possible = ["exit-0"]
            elif ready or not possible:
                return
            self.happen(possible[0])


def converges(universe: Universe, goal: Goal) -> None:
    """The instance reaches what is wanted of it, and nothing of it is left otherwise."""
    universe.feed(m.GoalChanged(goal=goal))
    universe.settle()
    if goal is Goal.RUN:
        final = {Stage.READY, Stage.COMPLETED, Stage.FAILED}
        assert universe.life.stage in final
        if universe.life.stage is Stage.READY:
            assert universe.in_table == universe.spec.serves
    else:
        assert universe.life.stage is Stage.STOPPED
        assert universe.process is None
        assert not universe.in_table


@settings(max_examples=400, deadline=None)
@given(spec=SPECS, choices=st.lists(st.integers(0, 1000), max_size=60), goal=st.sampled_from(Goal))
def test_from_any_history_it_reaches_its_goal(spec: ServiceSpec, choices: list[int], goal: Goal) -> None:
    """Whatever happened, once faults cease it runs or has stopped; the rules hold at every step."""
    universe = Universe(spec)

    for choice in choices:
        possible = universe.possible()
        universe.happen(possible[choice % len(possible)])

    converges(universe, goal)


STATUSES = st.builds(
    Status,
    phase=st.sampled_from(Phase),
    since=st.just(900.0),
    generation=st.just(3),
    boot_id=st.sampled_from(["b", "another boot"]),
)


@settings(max_examples=300, deadline=None)
@given(
    spec=SPECS,
    status=STATUSES,
    alive=st.booleans(),
    goals=st.tuples(st.sampled_from(Goal), st.sampled_from(Goal)),
    choices=st.lists(st.integers(0, 1000), max_size=20),
)
def test_from_any_status_an_adopted_one_reaches_its_goal(
    *, spec: ServiceSpec, status: Status, alive: bool, goals: tuple[Goal, Goal], choices: list[int]
) -> None:
    """The same, beginning with what a dead node left."""
    running = Running(instance="web-1", generation=3, pid=9, start_time=9, boot_id="b", port=21000)
    universe = Universe(spec, process=running if alive else None)
    universe.life, instructions = adopted(status, universe.process, "b", goals[0], universe.context())
    # What was signalled by the last node, or is past its drain, needs no second one.
    universe.signalled = status.phase is Phase.STOPPING
    universe.follow(instructions)

    for choice in choices:
        possible = universe.possible()
        universe.happen(possible[choice % len(possible)])

    converges(universe, goals[1])


def test_every_stage_with_a_process_notices_its_end() -> None:
    """The table has an entry for the end in each of them."""
    assert all((stage, m.Exited) in TRANSITIONS for stage in ALIVE)

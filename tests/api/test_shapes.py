"""What the API answers is what the client says that it answers."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args, get_type_hints, is_typeddict

import pytest

from unisono.api import applications, history, nodes, views
from unisono.client import views as shapes

PAIRS = [
    (views.InstanceView, shapes.InstanceView),
    (views.RolloutView, shapes.RolloutView),
    (views.RevisionView, shapes.RevisionView),
    (views.RolloutHistory, shapes.RolloutHistory),
    (views.ServiceView, shapes.ServiceView),
    (views.ApplicationView, shapes.ApplicationView),
    (views.ApplicationSummary, shapes.ApplicationSummary),
    (nodes.NodeView, shapes.NodeView),
    (nodes.GatewayView, shapes.GatewayView),
    (applications.PlanView, shapes.PlanView),
    (applications.ServiceChange, shapes.ChangeView),
    (history.EventView, shapes.EventView),
    (history.LogLineView, shapes.LogLine),
]


@pytest.mark.parametrize(("view", "shape"), PAIRS)
def test_client_names_every_field(view: type[Any], shape: type[Any]) -> None:
    """Both know the same fields, and agree which of them may be null."""
    there, here = get_type_hints(view), get_type_hints(shape)

    assert set(there) == set(here)
    assert {name for name in there if may_be_null(there[name])} == {
        name for name in here if may_be_null(here[name])
    }


def test_every_shape_is_compared() -> None:
    """No record of the client's is without its counterpart."""
    compared = {shape for _, shape in PAIRS}
    named = {shape for shape in vars(shapes).values() if is_typeddict(shape)}
    inner = {shapes.DifferenceView}  # the control plane's own record, in PlanView

    assert named - compared == inner
    assert all(dataclasses.is_dataclass(view) for view, _ in PAIRS)


def test_client_knows_the_same_states() -> None:
    """The words for a state are the same on both sides."""
    assert set(get_args(views.State)) == set(get_args(shapes.State))


def may_be_null(hint: Any) -> bool:
    return type(None) in get_args(hint)

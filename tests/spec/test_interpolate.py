"""Variables in values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unisono.spec.interpolate import TemplateError, interpolate

VARIABLES = {"SET": "value", "EMPTY": "", "OTHER": "more"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$SET", "value"),
        ("${SET}!", "value!"),
        ("$SET-$OTHER", "value-more"),
        ("${UNSET:-x}", "x"),
        ("${UNSET-x}", "x"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY-x}", ""),
        ("${SET:-x}", "value"),
        ("${SET:?no}", "value"),
        ("${EMPTY?no}", ""),
        ("${SET:+x}", "x"),
        ("${EMPTY:+x}", ""),
        ("${EMPTY+x}", "x"),
        ("${UNSET+x}", ""),
        ("${UNSET:-${ALSO:-$SET}}", "value"),
        ("${UNSET:-a${EMPTY:-b}c}d", "abcd"),
        ("${SET:-${NEVER:?not looked at}}", "value"),
        ("$$SET", "$SET"),
        ("$$$SET", "$value"),
        ("${UNSET:-$$}", "$"),
        ("${UNSET:-{port}} x", "{port} x"),
        ("${UNSET:-http://h:1/?q=-}", "http://h:1/?q=-"),
        ("{port}", "{port}"),
        ("100%", "100%"),
    ],
)
def test_variables_are_replaced_as_compose_does(text: str, result: str) -> None:
    """Each form, alone and nested."""
    assert result == interpolate(text, VARIABLES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${UNSET:?tell me}", "UNSET is required: tell me"),
        ("${UNSET?}", "UNSET is required: is not set"),
        ("${EMPTY:?}", "EMPTY is required: is empty or not set"),
        ("$5", 'found "\\$5", want a variable'),
        ("$(date)", "want a variable behind the \\$"),
        ("cost: 5$", "want a variable behind the \\$"),
        ("${SET", "want } or one of"),
        ("${SET:-x", "found no } that closes \\${SET:-"),
        ("${SET/a/b}", "want } or one of"),
        ("${A:-" * 50 + "}" * 50, "nested too deep"),
    ],
)
def test_what_is_no_variable_is_an_error(text: str, message: str) -> None:
    """It says what would be right."""
    with pytest.raises(TemplateError, match=message):
        interpolate(text, VARIABLES)


def test_variables_that_are_not_set_are_told_once_for_each_use() -> None:
    """A default that is not used is not looked at."""
    missing: list[str] = []
    interpolate("$A ${B} ${C:-x} ${SET:-$D}", VARIABLES, missing.append)

    assert ["A", "B"] == missing


@given(st.text())
def test_a_text_with_its_dollars_doubled_means_itself(text: str) -> None:
    """What `unisono config` prints is read back as it was."""
    assert text == interpolate(text.replace("$", "$$"), {})


@given(st.text(alphabet="${}:-?+AB_ x"))
def test_any_text_gives_a_text_or_one_kind_of_error(text: str) -> None:
    """No other error comes out."""
    try:
        result = interpolate(text, {"A": "1"})
    except TemplateError:
        return

    assert isinstance(result, str)


@given(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True), st.text(), min_size=1))
def test_values_are_not_interpolated_again(variables: dict[str, str]) -> None:
    """A dollar sign in a value is a dollar sign."""
    name = next(iter(variables))

    assert variables[name] == interpolate(f"${{{name}}}", variables)

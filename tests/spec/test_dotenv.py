"""Files of variables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unisono.spec.dotenv import EnvFileError, parse_env


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A=1\nB=2\n", {"A": "1", "B": "2"}),
        ("# note\n\n  A = 1  # why\n", {"A": "1"}),
        ("export A=1", {"A": "1"}),
        ("A: 1", {"A": "1"}),
        ("A=", {"A": ""}),
        ("A=x#y", {"A": "x#y"}),
        ("A='$X \"y\"'", {"A": '$X "y"'}),
        ('A="x\\ny" # note', {"A": "x\ny"}),
        ('A="two\nlines"\nB=1', {"A": "two\nlines", "B": "1"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A=1\nB=${A}2\nC=$HOST", {"A": "1", "B": "12", "C": "me"}),
        ("HOST\nNOT_THERE\n", {"HOST": "me"}),
        ("A=${X:-d}", {"A": "d"}),
        ("A=a=b", {"A": "a=b"}),
        ('A="\\$HOST"', {"A": "$HOST"}),
    ],
)
def test_a_file_is_read_as_compose_reads_it(text: str, found: dict[str, str]) -> None:
    """Quotes, comments, variables."""
    assert found == parse_env(text, {"HOST": "me"})


def test_a_raw_file_is_taken_as_it_is() -> None:
    """Quotes and dollar signs have no meaning in it."""
    assert {"A": "'$X' # y"} == parse_env("A='$X' # y\n", {}, raw=True)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("A=1\nnot this\n", 2, "want NAME=value"),
        ("=1", 1, "want NAME=value"),
        ("A=1\nB='x\n", 2, "not closed"),
        ("A='x' y", 1, "want the end of the line"),
        ("A=${B", 1, "A: found"),
        ("A=${B:?say it}", 1, "B is required: say it"),
    ],
)
def test_a_wrong_line_is_named(text: str, line: int, message: str) -> None:
    """Its number and what would be right."""
    with pytest.raises(EnvFileError, match=message) as caught:
        parse_env(text, {})

    assert line == caught.value.line


@given(st.text())
def test_any_text_gives_variables_or_one_kind_of_error(text: str) -> None:
    """No other error comes out."""
    try:
        found = parse_env(text, {})
    except EnvFileError:
        return

    assert all(isinstance(value, str) for value in found.values())


@given(
    st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True),
    st.text(st.characters(blacklist_characters="\0\r", blacklist_categories=["Cs"])),
)
def test_a_value_in_double_quotes_survives(name: str, value: str) -> None:
    """With backslashes, quotes and dollar signs escaped, anything can be written."""
    written = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")

    assert {name: value} == parse_env(f'{name}="{written}"\n', {})

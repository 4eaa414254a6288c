"""Foreign text is shown on one short line that steers no terminal."""

import sys
import time

import pytest
import torch

from lightning_ham.foreign import LONGEST, quoted, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain é ü 漢字 text", "plain é ü 漢字 text"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("two\nlines\r\tof  text ", "two lines of text"),
        ("bell\x07 back\x08 delete\x7f", r"bell\x07 back\x08 delete\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("right\u202eleft \u2066 zero\u200bwidth", r"right\u202eleft \u2066 zero\u200bwidth"),
        ("no text: \udcff", r"no text: \udcff"),
        ("", ""),
        (ValueError("a\x1bb"), r"a\x1bb"),
    ],
)
def test_what_steers_a_terminal_is_escaped(text, expected):
    assert shown(text) == expected
    assert shown(text).isprintable()


@pytest.mark.parametrize("character", ["x", "\x1b", "\U000e0001", " "])
@pytest.mark.parametrize("most", [7, 50, LONGEST])
def test_long_text_is_cut(character, most):
    line = shown(f"begin{character * 10**6}end", most)
    assert len(line) <= most
    assert line.startswith("be")
    assert line.endswith("d")
    assert "..." in line or character == " "


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, "3"),
        (None, "None"),
        (True, "True"),
        (0.5, "0.5"),
        ("a\x1b'", '"a\\x1b\'"'),
        (["a", {"b": [1]}], "['a', {'b': [...]}]"),
        (b"\x1b", r"b'\x1b'"),
        (10**12, "1000000000000"),
        (10**5000, "a number of 16,610 bits"),
        (torch.zeros(3, device="meta"), "<Tensor>"),
    ],
    ids=["int", "None", "bool", "float", "str", "list", "bytes", "large int", "huge int", "tensor"],
)
def test_values_are_quoted_as_python_writes_them(value, expected):
    assert quoted(value) == expected


def refers_to_itself():
    """A list that would take years to write out."""
    part = ["x"]
    for _ in range(60):
        part = [part, part]
    return part


@pytest.mark.parametrize(
    "value",
    [[[["x" * 99] * 9] * 9] * 9, {f"{n}" * 99: n for n in range(99)}, refers_to_itself(), "x" * 10**6, -(7**9999)],
    ids=["nested", "dict", "refers to itself", "text", "number"],
)
def test_large_values_are_short_and_take_no_time(value):
    start = time.process_time()  # whatever else the machine does
    assert len(quoted(value)) <= LONGEST
    assert time.process_time() - start < 1


def test_a_lower_limit_of_digits_is_no_error():
    limit = sys.get_int_max_str_digits()
    try:
        sys.set_int_max_str_digits(640)
        assert quoted(10**3000) == "a number of 9,966 bits"
    finally:
        sys.set_int_max_str_digits(limit)

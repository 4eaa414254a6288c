"""config.json is read strictly: every mistake is an error that names the key."""

import json
import re
import sys
import time

import pytest

from lightning_ham import __version__
from lightning_ham.controllers import complete_options
from lightning_ham.hub.config import MAX_BYTES, make_config, read_config
from lightning_ham.models import TaskModel


@pytest.fixture
def config():
    return dict(make_config("sort", "lstm_ham", TaskModel("sort").controller_options))


@pytest.fixture
def read(tmp_path):
    """Writes text or an object as a config.json and reads it."""

    def read(content):
        file = tmp_path / "config.json"
        file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return read_config(file)

    return read


def test_what_is_written_is_the_schema(config, read):
    assert list(config) == ["format_version", "lightning_ham_version", "task", "controller", "controller_options"]
    assert config["format_version"] == 1
    assert config["lightning_ham_version"] == __version__
    assert read(config) == config


def test_a_config_by_another_release_of_the_same_format_is_read(config, read):
    assert read(config | {"lightning_ham_version": "9.9.9"})["lightning_ham_version"] == "9.9.9"


@pytest.fixture
def more_options(monkeypatch):
    """Controllers with an option that is a number, and one that is true or false, as those of other packages may be."""
    more = {"rate": 1.0, "is_odd": False}

    def complete(name, options):
        known = complete_options(name, {option: value for option, value in options.items() if option not in more})
        return known | {option: options.get(option, default) for option, default in more.items()}

    monkeypatch.setattr("lightning_ham.hub.config.complete_options", complete)
    return more


def test_a_whole_number_will_do_where_a_number_is_wanted(config, read, more_options):
    config["controller_options"] |= more_options | {"rate": 2}
    assert read(config)["controller_options"]["rate"] == 2


def test_options_of_older_models_that_are_gone_may_be_there(config, read):
    config["controller_options"] |= {"temperature": 1.0, "read_root": False}
    assert read(config) == config
    config["controller_options"]["read_root"] = True
    with pytest.raises(ValueError, match="Option 'read_root' of controller 'lstm_ham' is gone: expected") as raised:
        read(config)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"taks": "sort"}, "Unknown key 'taks'; did you mean 'task'? Known keys: format_version, lightning_ham_ver"),
        ({"auto_map": {"AutoModel": "x.py"}}, "Unknown key 'auto_map'; Known keys: "),
        (
            {"task": None},
            "Expected the keys format_version, lightning_ham_version, task, controller, controller_option",
        ),
        ({"controller_options": None}, "but 'controller_options' is missing; save the model again."),
        ({"format_version": None}, "but 'format_version' is missing"),
        (
            {"format_version": 2},
            "'format_version' to be 1, but got 2: a newer lightning_ham (0.1.0; this is 0.1.0) saved",
        ),
        ({"format_version": 2, "new": 1}, "Upgrade with `pip install --upgrade lightning-ham`."),
        ({"format_version": 0}, "Expected key 'format_version' to be 1, but got 0."),
        ({"format_version": "1"}, "Expected key 'format_version' to be an integer, but got '1'."),
        ({"format_version": True}, "Expected key 'format_version' to be an integer, but got True."),
        ({"lightning_ham_version": 1}, "Expected key 'lightning_ham_version' to be a string, but got 1."),
        ({"task": 3}, "Expected key 'task' to be a string, but got 3."),
        ({"task": "srot"}, "key 'task': Unknown task 'srot'; did you mean 'sort'?"),
        ({"controller": "lstm_hma"}, "key 'controller': Unknown controller 'lstm_hma'; did you mean 'lstm_ham'? Known"),
        ({"controller_options": []}, "Expected key 'controller_options' to be an object, but got []."),
        ({"weights_sha256": 1}, "Expected key 'weights_sha256' to be a string, but got 1."),
        (
            {"weights_sha256": "0" * 63},
            "Expected key 'weights_sha256' to be a SHA-256 in 64 hexadecimal digits, but got",
        ),
        (
            {"weights_sha256": "A" * 64},
            "Expected key 'weights_sha256' to be a SHA-256 in 64 hexadecimal digits, but got",
        ),
    ],
)
def test_wrong_keys_and_values(config, read, change, message):
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        read({key: value for key, value in (config | change).items() if value is not None})
    assert "config.json: " in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("laef_size", 3, "Unknown option 'laef_size' of controller 'lstm_ham'; did you mean 'leaf_size'?"),
        ("leaf_size", "32", "Expected key 'controller_options.leaf_size' to be an integer, but got '32'."),
        ("leaf_size", 32.0, "Expected key 'controller_options.leaf_size' to be an integer, but got 32.0."),
        ("leaf_size", None, "Expected key 'controller_options.leaf_size' to be an integer, but got None."),
        ("leaf_size", True, "Expected key 'controller_options.leaf_size' to be an integer, but got True."),
        (
            "leaf_size",
            10**12,
            "Expected key 'controller_options.leaf_size' to be at most 16,384, but got 1000000000000.",
        ),
        ("leaf_size", 10**4000, "Expected key 'controller_options.leaf_size' to be at most 16,384, but got 1000"),
        ("hidden_size", 10**12, "Expected key 'controller_options.hidden_size' to be at most 16,384"),
        (
            "hidden_size",
            {"a": 1},
            "'controller_options.hidden_size' to be a plain value or a list of such, but got {'a'",
        ),
        ("hidden_size", [[1, 10**9]], "Expected key 'controller_options.hidden_size[0][1]' to be at most 16,384"),
        ("is_odd", 1, "Expected key 'controller_options.is_odd' to be true or false, but got 1."),
        ("join", 1, "Expected key 'controller_options.join' to be a string, but got 1."),
        ("rate", "hot", "Expected key 'controller_options.rate' to be a number, but got 'hot'."),
    ],
)
def test_wrong_options(config, read, more_options, name, value, message):
    config["controller_options"] |= (more_options if name in more_options else {}) | {name: value}
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        read(config)
    assert len(str(raised.value)) < 500


def _without(options: dict[str, object], names: set[str]) -> dict[str, object]:
    return {name: value for name, value in options.items() if name not in names}


def test_every_option_must_be_there_that_older_models_have_too(config, read):
    added = {"grid"}
    assert read({**config, "controller_options": _without(config["controller_options"], added)})
    for name in config["controller_options"].keys() - added:
        options = _without(config["controller_options"], {name})
        with pytest.raises(ValueError, match=f"Expected key 'controller_options.{name}', but it is missing"):
            read(config | {"controller_options": options})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expected JSON in UTF-8, but got: Expecting value"),
        (b'{"task": ', "Expected JSON in UTF-8, but got: "),
        (b"\xff\xfe{", "Expected JSON in UTF-8, but got: "),
        (b'{"task": "sort", "task": "merge"}', "but got: a key twice in one object"),
        (b'{"task": NaN}', "but got: NaN, which is not JSON"),
        (b'{"task": 1' + b"0" * 5000 + b"}", "Expected JSON in UTF-8, but got: "),
        (b"[1]", "Expected an object with the keys format_version, "),
        (b"[" * 200_000, "Expected JSON of a few levels, but got far deeper nesting."),
        (b" " * (MAX_BYTES + 1), "Expected at most 1,048,576 bytes, but got a larger file."),
    ],
)
def test_what_is_no_json_object(read, content, message):
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        read(content)
    assert "config.json: " in str(raised.value)


def test_the_hash_of_the_weights_may_be_there(config, read):
    assert read(config | {"weights_sha256": "0" * 64})["weights_sha256"] == "0" * 64
    assert dict(make_config(*list(config.values())[2:], weights_sha256="a" * 64)) == config | {
        "weights_sha256": "a" * 64
    }


@pytest.fixture
def no_limit_of_digits():
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    yield
    sys.set_int_max_str_digits(limit)


@pytest.mark.parametrize("digits", [5_000, 1_000_000])
@pytest.mark.parametrize("key", ["format_version", "lightning_ham_version", "task", "controller_options", "other"])
def test_numbers_of_many_digits_are_refused_at_once_whatever_python_is_told(
    config, read, no_limit_of_digits, key, digits
):
    text = json.dumps(config | {key: "NUMBER"}).replace('"NUMBER"', "9" * digits)
    start = time.process_time()
    with pytest.raises(ValueError, match=f"Expected JSON in UTF-8, but got: a number of {digits:,} digits"):
        read(text.encode())
    assert time.process_time() - start < 1


MODEL_KEYS = ["format_version", "lightning_ham_version", "task", "controller", "controller_options", "weights_sha256"]
ESCAPE = "\x1b[31m\u202e\n\x07"
NESTED = [[[["x" * 60] * 9] * 9] * 9] * 9


HOSTILE = {
    "escape": ESCAPE,
    "long": ESCAPE * 100_000,
    "nested": NESTED,
    "names": {ESCAPE * 9: NESTED},
    "number": 10**4000,
    "list": [ESCAPE] * 99,
}


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("key", [*MODEL_KEYS, "another"])
@pytest.mark.parametrize("version", [1, 10**4000], ids=["this version", "a newer version"])
def test_what_a_message_quotes_is_escaped_and_short(config, read, key, value, version):
    config |= {"format_version": version, ESCAPE * 99 if key == "another" else key: HOSTILE[value]}
    with pytest.raises(ValueError, match=r"^\S*config.json: ") as raised:
        read(config | {"also": ESCAPE})
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 700


@pytest.mark.parametrize("name", ["leaf_size", "temperature", "read_root", "another"])
@pytest.mark.parametrize("value", HOSTILE)
def test_what_a_message_quotes_of_options_is_escaped_and_short(config, read, name, value):
    config["controller_options"][ESCAPE * 99 if name == "another" else name] = HOSTILE[value]
    with pytest.raises(ValueError, match=r"^\S*config.json: ") as raised:
        read(config)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 700


def test_an_option_of_many_levels_is_refused(config, read):
    value = 1
    for _ in range(900):
        value = [value]
    config["controller_options"]["hidden_size"] = value
    with pytest.raises(ValueError, match="to be a plain value or a list of such"):
        read(config)


def test_infinite_numbers_are_refused(config, read, more_options):
    config["controller_options"] |= more_options
    text = json.dumps(config).replace('"rate": 1.0', '"rate": 1e999')
    with pytest.raises(ValueError, match=r"'controller_options.rate' to be a finite number, but got inf"):
        read(text.encode())

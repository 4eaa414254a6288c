"""Damaged and forged files, by the hundred: a model is loaded, or refused in one short line."""

import hashlib
import io
import json
import random
import struct
import zipfile

import pytest
import torch

from lightning_ham.hub import from_pretrained, list_pretrained
from lightning_ham.models.__main__ import table

TEXTS = [
    "\x1b[31mred",
    "two\nlines",
    "\u202eright to left",
    "\0",
    "x" * 300_000,
    "../../x",
    "",
    "lstm",
    "raw_ham",
    "mlp",
]
NUMBERS = [-1, 0, 1, 2**14, 2**63, 10**400, 10**4299, -(10**9), 1e308, float("inf"), float("nan"), 0.5]


class Forger:
    """Makes files that differ from sound ones, the same for the same seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def damaged(self, content):
        """Bytes with flips, cuts, insertions and repetitions, or other ones altogether."""
        content, choice = bytearray(content), self.random.randrange(7)
        at = self.random.randrange(len(content) + 1)
        if choice == 0:
            for _ in range(self.random.randrange(1, 9)):
                content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
        elif choice == 1:
            del content[at:]
        elif choice == 2:
            content[at : at + self.random.randrange(20)] = self.random.randbytes(self.random.randrange(20))
        elif choice == 3:
            content[at:at] = self.random.choice([b"\x1b[2J", b"\a\b", b"\n\n", b"\r", b"\x9b31m", b"\xff\xfe", b"\0"])
        elif choice == 4:
            many = self.random.choice([30, 5000, 100_000])
            content[at:at] = self.random.choice([b"9", b"[", b"{", b"- ", b"x", b'"']) * many
        elif choice == 5:
            content[at:at] = content[at // 2 : at]
        else:
            content[:] = self.random.randbytes(self.random.choice([0, 1, 8, 5000]))
        return bytes(content)

    def value(self, deepest=900):
        """What may stand in JSON, and should not."""
        deep = 1
        for _ in range(self.random.choice([2, 50, deepest])):
            deep = [deep]
        wide = [[["x" * 50] * 9] * 9] * 9
        other = [None, True, [], {}, deep, wide, {"a": wide}, [1, 2, 3]]
        return self.random.choice([self.random.choice(TEXTS), self.random.choice(NUMBERS), self.random.choice(other)])

    def tensor(self):
        """What may stand for a weight in a checkpoint, and should not."""
        made = self.random.randrange(7)
        if made == 0:
            return torch.zeros(3, device="meta")
        if made == 1:
            return torch.eye(3).to_sparse()
        if made == 2:
            return torch.zeros(1).expand(2**40)
        if made == 3:
            return torch.zeros(11, dtype=torch.complex64).conj()
        if made == 4:
            return torch.nn.Parameter(torch.zeros(11, dtype=torch.float16))
        value = self.value(deepest=200)  # torch.save goes no deeper
        return value if made == 5 else self.doubled(value)

    @staticmethod
    def doubled(value):
        for _ in range(40):
            value = [value, value]
        return value

    def mapping(self, mapping, value):
        """Change a mapping: a value, a name, or whether it is there."""
        name, choice = self.random.choice(list(mapping)), self.random.randrange(4)
        if choice < 2:
            mapping[name] = value()
        elif choice == 2:
            del mapping[name]
        else:
            mapping[self.random.choice(TEXTS) + name] = value()

    def config(self, content):
        if self.random.random() < 0.4:
            return self.damaged(content)
        config = json.loads(content)
        self.mapping(self.random.choice([config, config["controller_options"]]), self.value)
        return json.dumps(config, ensure_ascii=self.random.random() < 0.5).encode()

    def weights(self, content):
        if self.random.random() < 0.4:
            return self.damaged(content)
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        tensor = self.random.choice([name for name in header if name != "__metadata__"])
        choice = self.random.randrange(5)
        if choice == 0:
            kinds = ["F64", "BF16", "F8_E5M2", "F4", "F6_E2M3", "F8_E8M0", "C64", "U64", *TEXTS]
            header[tensor]["dtype"] = self.random.choice(kinds)
        elif choice == 1:
            header[tensor]["shape"] = self.random.choice([[], [0], [1], [2**63], [0, 2**62], [-1], self.value()])
        elif choice == 2:
            header[tensor]["data_offsets"] = self.random.choice([[0, 0], [0, 4], [0, 2**64], [5, 1], self.value()])
        else:
            self.mapping(header, self.value)
        made = json.dumps(header).encode()
        return struct.pack("<Q", len(made)) + made + content[8 + size :]

    def checkpoint(self, content):
        choice = self.random.random()
        if choice < 0.3:
            return self.damaged(content)
        made = io.BytesIO()
        if choice < 0.6:  # with the right checksums
            with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(made, "w") as archive:
                for entry in source.infolist():
                    part = source.read(entry)
                    part = self.damaged(part) if entry.filename.endswith("data.pkl") else part
                    archive.writestr(zipfile.ZipInfo(entry.filename), part)
            return made.getvalue()
        checkpoint = torch.load(io.BytesIO(content), weights_only=True)
        parts = [checkpoint, checkpoint["state_dict"], checkpoint["hyper_parameters"]]
        self.mapping(self.random.choice([*parts, checkpoint["hyper_parameters"]["controller_options"]]), self.tensor)
        torch.save(checkpoint, made)
        return made.getvalue()

    def card(self, content):
        if self.random.random() < 0.4:
            return self.damaged(content)
        values = ["1-32", '"1-32\\nham-x"', '"\\e[31m1"', "0.5", ".nan", "1e400", "-1", "1" + "0" * 400, "9" * 50_000]
        values += [
            "*a",
            "&a [*a]",
            "[" * 3000,
            "{a: " * 3000,
            "!!python/object:os.system {}",
            "!!timestamp x",
            "!!int ''",
        ]
        values += ["\x1b[31m", "'\\U99999999'", "1:" * 3000, "%", "? ", "{a: b}", "- " * 3000, "\x00", "\xff"]
        lengths, error = self.random.choice(values), self.random.choice(values)
        metrics = f"    metrics:\n    - {{type: sequence_error, value: {error}}}\n"
        results = f"  results:\n  - dataset: {{config: {lengths}}}\n{metrics}"
        return f"---\nmodel-index:\n- name: x\n{results}---\n".encode("latin-1")


def check_refusal(error):
    message = str(error)
    assert message.isprintable(), message[:300]
    assert len(message) < 700, message[:300]
    assert not isinstance(error, UnicodeError)


def check_models(folder, checkpoint, cache, seed, number):
    """Forge so many files of every kind, and see what comes of them."""
    forger = Forger(seed)
    sound = {path.name: path.read_bytes() for path in folder.iterdir()}
    plain = checkpoint.read_bytes()
    for turn in range(4 * number):
        kind = ("config.json", "model.safetensors", "checkpoint", "README.md")[turn % 4]
        for name, content in sound.items():
            (folder / name).write_bytes(content)
        if kind == "checkpoint":
            checkpoint.write_bytes(forger.checkpoint(plain))
            load(checkpoint)
        elif kind == "README.md":
            check_card(cache, forger.card(sound[kind]))
        elif kind == "config.json":
            (folder / kind).write_bytes(forger.config(sound[kind]))
            load(folder)
        else:
            forged = forger.weights(sound[kind])
            (folder / kind).write_bytes(forged)
            if forger.random.random() < 0.5:  # the hash is no help
                config = json.loads(sound["config.json"]) | {"weights_sha256": hashlib.sha256(forged).hexdigest()}
                (folder / "config.json").write_text(json.dumps(config))
                load(folder)
            else:
                assert load(folder) == (forged == sound[kind])


def load(path):
    """Return whether a model is loaded; it must be refused in one short line if not."""
    try:
        from_pretrained(path)
    except (ValueError, OSError) as error:
        check_refusal(error)
        return False
    return True


def check_card(cache, card):
    (snapshot,) = cache.glob("models--ada--mine/snapshots/*")
    (snapshot / "README.md").write_bytes(card)
    models = list_pretrained(cache)
    assert [model.name for model in models[-2:]] == ["ada/mine", "ada/other"]
    lines = table(models).split("\n")
    assert len(lines) == 1 + len(models)
    assert all(line.isprintable() and len(line) < 300 for line in lines)


@pytest.fixture
def cache(cache, put, folder):
    """A cache with two models that were downloaded."""
    for name in ("ada/mine", "ada/other"):
        put(name, folder)
    return cache


@pytest.mark.filterwarnings("ignore:.*Sparse.*:UserWarning")
def test_forged_files_are_refused_in_one_short_line(folder, write_checkpoint, cache):
    check_models(folder, write_checkpoint(), cache, seed=1, number=250)

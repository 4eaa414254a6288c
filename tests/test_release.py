"""Workflows, templates and lower bounds: what they name is there, and publishing is allowed what it needs only."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def steps(workflow):
    return [step for job in WORKFLOWS[workflow]["jobs"].values() for step in job["steps"]]


def constraints(name):
    pins = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return {canonicalize_name(Requirement(pin).name): Requirement(pin) for pin in pins if pin}


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_what_a_workflow_runs_is_there(workflow):
    makefile = (ROOT / "Makefile").read_text()
    commands = "\n".join(step["run"] for step in steps(workflow) if "run" in step)
    assert commands
    for target in re.findall(r"\bmake ([\w-]+)", commands):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in re.findall(r"(?:^|\s)((?:\.ci|tests)/[\w./]+|[\w-]+\.txt)", commands):
        assert (ROOT / path).exists(), path
    for job in WORKFLOWS[workflow]["jobs"].values():
        assert job["timeout-minutes"] <= 60


def test_every_system_is_in_the_matrix():
    matrix = WORKFLOWS["ci"]["jobs"]["systems"]["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "windows", "macos"}
    offered = [name for name in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", name)]
    assert [name.rpartition(" ")[2] for name in offered] == matrix["python"]


def test_only_the_job_that_publishes_may_sign_and_no_job_has_a_token():
    release = WORKFLOWS["release"]
    assert release["permissions"] == WORKFLOWS["ci"]["permissions"] == {"contents": "read"}
    build, publish = release["jobs"]["build"], release["jobs"]["publish"]
    assert "permissions" not in build
    assert publish["permissions"] == {"id-token": "write", "attestations": "write", "contents": "read"}
    assert publish["environment"] == "pypi"
    assert publish["needs"] == "build"
    assert not any("run" in step for step in publish["steps"]), "where signing is allowed, nothing of ours runs"
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    assert "secrets." not in text
    assert "password" not in text
    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML reads the key `on` as true


def test_a_release_is_refused_if_its_tag_and_the_version_differ():
    (check,) = [step["run"] for step in steps("release") if "GITHUB_REF_NAME" in step.get("run", "")]
    pattern = re.search(r"s/(.*)/\\1/p", check)[1].replace(r"\(", "(").replace(r"\)", ")")
    version = re.search(pattern, (ROOT / "lightning_ham" / "__init__.py").read_text(), re.MULTILINE)[1]
    assert (ROOT / "tests" / "golden" / version).is_dir()


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_a_template_of_an_issue_asks_for_something(path):
    form = yaml.safe_load(path.read_text())
    if path.stem == "config":
        assert form == {"blank_issues_enabled": False}
        return
    assert form["name"]
    assert form["description"]
    identities = [part["id"] for part in form["body"]]
    assert len(set(identities)) == len(identities)
    assert all(part["type"] in {"textarea", "input"} and part["attributes"]["label"] for part in form["body"])
    assert any(part.get("validations", {}).get("required") for part in form["body"])


def test_the_oldest_set_is_the_lower_bounds_and_the_newest_one_is_allowed():
    oldest, newest = constraints("constraints-oldest.txt"), constraints("constraints.txt")
    for text in PROJECT["dependencies"]:
        wanted = Requirement(text)
        name = wanted.name.lower()
        (bound,) = [part.version for part in wanted.specifier if part.operator == ">="]
        (pin,) = oldest[name].specifier
        assert pin.operator == "=="
        assert Version(pin.version) == Version(bound), name
        (pin,) = newest[name].specifier
        assert pin.version in wanted.specifier, name
    assert {Requirement(text).name.lower() for text in PROJECT["dependencies"]} == set(oldest)

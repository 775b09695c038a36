"""What `make setup` installs is there for the oldest Python that it takes."""

import re
from importlib.metadata import PackageNotFoundError, metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tools.environment import REPOSITORY

PINS = (REPOSITORY / "tools" / "requirements.txt").read_text(encoding="utf-8")


def oldest_python() -> str:
    source = (REPOSITORY / "tools" / "setup.py").read_text(encoding="utf-8")
    major, minor = re.search(r"sys\.version_info < \((\d+), (\d+)\)", source).groups()
    return f"{major}.{minor}"


def test_pins_for_every_python_know_the_oldest():
    oldest = oldest_python()
    assert f"Python ≥ {oldest}" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
    pins = [Requirement(line) for line in PINS.splitlines() if line and not line.startswith("#")]
    for_all = [pin for pin in pins if pin.marker is None or pin.marker.evaluate({"python_version": oldest})]
    assert {pin.name for pin in for_all} == {pin.name for pin in pins}
    checked = 0
    for pin in for_all:
        try:
            found = metadata(pin.name)
        except PackageNotFoundError:
            continue  # a Python of the user's own
        if pin.specifier != SpecifierSet(f"=={found['Version']}"):
            continue  # of a newer Python, or whatever release it takes
        checked += 1
        assert oldest in SpecifierSet(found["Requires-Python"] or ""), pin.name
    assert checked > 5

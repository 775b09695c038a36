"""The page of licences has a row for each package that the nodes import or our files of requirements name."""

import re

from tools.licences import FROM_COMFYUI, OPTIONAL, PAGE, for_development


def test_no_package_is_missing_or_left_over():
    rows = dict(re.findall(r"^\| ([\w.-]+) \| ([^|]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert rows.keys() == {*FROM_COMFYUI, *OPTIONAL, *for_development()}
    assert all(licence.strip() for licence in rows.values())

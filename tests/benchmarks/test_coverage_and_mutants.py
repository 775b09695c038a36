"""What is counted of the reports of coverage and mutmut."""

from benchmarks import coverage, mutants, results
from tools.environment import REPOSITORY


def test_changes_that_no_test_noticed_are_named():
    found = """
    guidance_core.a.x_f__mutmut_1: killed
    guidance_core.a.x_f__mutmut_2: survived
    guidance_core.a.x_g__mutmut_1: timeout
    guidance_core.b.xǁThingǁgo__mutmut_1: no tests
    guidance_core.c.x_f__mutmut_1: not checked
"""
    assert mutants.rows(found, str.upper) == {
        "guidance_core.a": {
            "changes": 3,
            "unnoticed": {"guidance_core.a.x_f__mutmut_2": "GUIDANCE_CORE.A.X_F__MUTMUT_2"},
        },
        "guidance_core.b": {
            "changes": 1,
            "unnoticed": {"guidance_core.b.xǁThingǁgo__mutmut_1": "GUIDANCE_CORE.B.XǁTHINGǁGO__MUTMUT_1"},
        },
    }


def test_what_a_change_does_is_read_from_its_difference():
    difference = """--- guidance_core/a.py
+++ guidance_core/a.py
@@ -1,4 +1,4 @@
 def f(x):
-    return x.sum(-1)
+    return x.sum(+1)
"""
    assert mutants.changed(difference) == "return x.sum(-1) → return x.sum(+1)"


def test_files_are_counted_by_their_folder():
    def file(lines, ran):
        summary = {"num_statements": lines, "covered_lines": ran, "num_branches": 4, "covered_branches": 3}
        return {"summary": summary}

    files = {"nodes/a.py": file(10, 7), "nodes/wing/c.py": file(5, 5), "nodes/b.py": file(20, 20)}
    counts = coverage.of_folders(files)
    assert counts["nodes"] == {"lines": 30, "lines that ran": 27, "branches": 8, "branches that ran": 6}
    assert counts["nodes/wing"]["lines that ran"] == 5 and len(counts) == 2


def test_each_folder_of_the_pack_has_a_figure():
    folders = ("contract", "guidance_core", "nodes")
    files = (file for folder in folders for file in (REPOSITORY / folder).rglob("*.py") if file.name != "__init__.py")
    expected = {file.parent.relative_to(REPOSITORY).as_posix() for file in files}
    assert results.read("coverage")["rows"].keys() == expected

"""The table of faults in `tests/mutations/run.py` is up to date with the library and its tests."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]
FAULTS = runpy.run_path(str(ROOT / "tests" / "mutations" / "run.py"))["FAULTS"]


def test_each_fault_has_one_place_in_the_library() -> None:
    texts = {
        fault.file: (ROOT / "src" / "chartae" / fault.file).read_text("utf-8") for fault in FAULTS
    }
    found = {str(fault): texts[fault.file].count(fault.old) for fault in FAULTS}
    assert {name: number for name, number in found.items() if number != 1} == {}


def test_the_tests_of_each_fault_exist() -> None:
    for name in {name for fault in FAULTS for name in fault.tests}:
        file, *parts = name.split("::")
        text = (ROOT / file).read_text("utf-8")
        for part in parts:
            assert re.search(rf"^ *(def|class) {part}\b", text, flags=re.MULTILINE), name

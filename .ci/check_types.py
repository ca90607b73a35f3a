"""Check the module and programs of its users with one type checker.

Usage::

    python .ci/check_types.py NAME COMMAND...

COMMAND is the type checker without the files, and NAME is what the output calls it.  The
files are the module, ``.ci/programs/*.py`` and README's Python blocks as ``readme-1.py``
and so on.  They are checked in a temporary folder, side by side, as a user has them.

A file passes if the checker finds no error in it.  ``mistakes.py`` passes if the
checker finds an error on each line that ends with ``# error``, and on no other line.

The exit status is 1 if a file fails.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / ".ci" / "programs"
MISTAKES = "mistakes.py"

# mypy writes "file.py:3: error: words", pyright "  /folder/file.py:3:7 - error: words".
ERROR = re.compile(r"^ *(.*\.py):(\d+)(?::\d+ -|:) (error: .*)$", re.MULTILINE)


def copy_files(folder):
    """Copy all files that are checked to the folder, and return their names."""
    for path in [ROOT / "claude_batches.py", *PROGRAMS.glob("*.py")]:
        shutil.copy(path, folder)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    for number, block in enumerate(blocks, 1):
        (folder / f"readme-{number}.py").write_text(block, encoding="utf-8")
    return sorted(path.name for path in folder.glob("*.py"))


def find_errors(command, folder, names):
    """Run the checker, and return {file name: {line number: text of its error}}."""
    process = subprocess.run(
        [*command, *names],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    errors = {name: {} for name in names}
    for path, line, text in ERROR.findall(process.stdout):
        errors[Path(path).name].setdefault(int(line), text)
    # Both checkers exit with 1 if they found errors, with 2 or more if they broke.
    if process.returncode != any(errors.values()):
        sys.exit(f"{process.stdout}\nThe checker exited with {process.returncode}.")
    return errors


def find_mistakes(path, found):
    """Return what is wrong with the errors found in a file whose lines are marked."""
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    marked = {number for number, line in lines if line.endswith("# error")}
    wrong = {number: text for number, text in found.items() if number not in marked}
    wrong.update({number: "no error was found" for number in marked - set(found)})
    return wrong


def judge(name, errors):
    """Print what became of a file, and return whether it passed."""
    print(f"{name}: FAILED" if errors else f"{name}: passed")
    for number, text in sorted(errors.items()):
        print(f"    line {number}: {text}")
    return not errors


def main(checker, *command):
    print(f"{checker}:")
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name).resolve()
        errors = find_errors(command, folder, copy_files(folder))
        errors[MISTAKES] = find_mistakes(folder / MISTAKES, errors[MISTAKES])
    results = [judge(name, errors[name]) for name in errors]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

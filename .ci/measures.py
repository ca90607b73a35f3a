"""Print the measures of the code, and fail for a line or function that is too dense.

Usage::

    python .ci/measures.py

Tokens of code are names, literals and operators without commas and docstrings; a line
of code holds at least one.  How many tokens there are in all informs; at most 7 a line
and 40 lines of code in a function of the module are bounds.
"""

import ast
import sys
import tokenize
from collections import Counter
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent
CODE = (tokenize.NAME, tokenize.NUMBER, tokenize.STRING, tokenize.OP)


def docstring_places(tree):
    """Yield line and column of each docstring."""
    for node in ast.walk(tree):
        is_scope = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if is_scope and ast.get_docstring(node) is not None:
            yield node.body[0].lineno, node.body[0].col_offset


def tokens_by_line(path, tree):
    """Return a Counter: how many tokens of code begin in each line that has some."""
    docstrings = set(docstring_places(tree))
    lines = Counter()
    with open(path, "rb") as file:
        for token in tokenize.tokenize(file.readline):
            is_code = token.type in CODE and token.string != ","
            if is_code and token.start not in docstrings:
                lines[token.start[0]] += 1
                # The later lines of a string over several lines are code, too.
                for later in range(token.start[0] + 1, token.end[0] + 1):
                    lines[later] += 0
    return lines


def functions(tree, lines):
    """Yield the lines of code and the name of each function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            span = range(node.lineno, node.end_lineno + 1)
            yield sum(number in lines for number in span), node.name


def main():
    is_good = True
    for name in ("claude_batches.py", "test_claude_batches.py"):
        path = FOLDER / name
        tree = ast.parse(path.read_bytes())
        lines = tokens_by_line(path, tree)
        total, density = sum(lines.values()), sum(lines.values()) / len(lines)
        print(f"{name}: {total:,} tokens of code, {density:.2f} a line")
        if name == "claude_batches.py":
            longest, function = max(functions(tree, lines))
            print(f"the longest function, {function}: {longest} lines of code")
            is_good = density <= 7 and longest <= 40
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())

"""Code that runs inside the sandbox, as `python -c THIS GIVEN REPORT`: it sets its limits, then runs the program.

GIVEN and REPORT are file descriptors. The first contains a JSON object: the source of the program, its role, and the
parameters of the role. When all limits are set, a byte is written to the second; a role writes its report after it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` would be the slowest import of all
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType
    from typing import Any


def _contain(bounds: dict[str, int], steps: bytes) -> None:
    """Set limits, a new keyring and the filter of system calls for this process and its children."""
    import ctypes
    import os
    import resource

    with open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123 (`pathlib` is slow to import)
        score.write("1000")  # if memory runs out, the kernel kills this process first
    for name, bound in bounds.items():
        limit = getattr(resource, name)
        hard = resource.getrlimit(limit)[1]
        least = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(limit, (least, least))
    if not steps:
        return

    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]

    libc = ctypes.CDLL(None, use_errno=True)
    keyctl, join_session_keyring = {"x86_64": 250, "aarch64": 219}[os.uname().machine], 1
    libc.syscall(keyctl, join_session_keyring, None)  # a kernel without keys needs no keyring
    no_new_privileges, set_seccomp, by_filter = 38, 22, 2
    given = ctypes.byref(Filter(len(steps) // 8, steps))
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(set_seccomp, by_filter, given, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"system calls cannot be filtered (seccomp): {os.strerror(number)}")


def _given() -> tuple[dict[str, Any], int]:
    """Return the parameters and the file descriptor for reports; after this call the process is contained."""
    import _sitebuiltins
    import builtins
    import json
    import os
    import sys

    text, report = map(int, sys.argv[1:])
    sys.argv[:] = ["program.py"]
    for name in ("exit", "quit"):  # `site` would define them, and add installed packages
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)"))
    with open(text, encoding="utf-8") as file:  # noqa: PTH123 (an open file has no path)
        given: dict[str, Any] = json.load(file)
    _contain(given["bounds"], bytes.fromhex(given["filter"]))
    os.write(report, b".")
    return given, report


def _compiled(given: dict[str, Any]) -> Iterator[CodeType]:
    """Run the prelude, then the program. With `leave`, a `return` outside of functions ends it."""
    if given["prelude"]:
        yield compile(given["prelude"], "prelude.py", "exec", dont_inherit=True)
    try:
        code = compile(given["program"], "program.py", "exec", dont_inherit=True)
    except SyntaxError:
        if not given["leave"]:
            raise
        import ast

        class Leaving(ast.NodeTransformer):
            def visit(self, node: ast.AST) -> ast.AST:
                if isinstance(node, ast.Return):
                    return ast.copy_location(ast.Raise(ast.Name("SystemExit", ast.Load())), node)
                inner = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda)
                return node if inner else self.generic_visit(node)

        tree = ast.parse(given["program"])
        tree.body = [Leaving().visit(node) for node in tree.body]
        ast.fix_missing_locations(tree)
        code = compile(tree, "program.py", "exec", dont_inherit=True)
    yield code


def _play() -> None:
    """Execute the given role."""
    import os
    import sys

    given, report = _given()
    if given["prelude"]:
        sys.set_int_max_str_digits(0)
    codes = _compiled(given)
    names = globals()
    # The program gets a module `__main__` without the names of this file.
    for name in [name for name in names if name[:2] != "__"]:
        del names[name]
    if given["part"] == "program":
        os.close(report)
        for code in codes:
            exec(code, names)  # noqa: S102 (this is the inside of the box)
    else:
        for name, text in given["modules"].items():  # packages cannot be imported here
            module = type(sys)(name)
            if given["part"] == "test":
                sys.modules[name] = module
            exec(text, module.__dict__)  # noqa: S102
        getattr(module, given["part"])(given, codes, report)


if __name__ == "__main__":
    _play()

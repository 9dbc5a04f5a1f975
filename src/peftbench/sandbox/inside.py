"""Run inside the sandbox, as `python -c THIS TEXT READY BOUNDS`: sets its limits, then becomes the program.

TEXT and READY are numbers of open files: one to read the program from, one to which a byte is written when all is set.
"""


def _program() -> str:
    import json
    import os
    import resource
    import site
    import sys
    from pathlib import Path

    text, ready, bounds = sys.argv[1:]
    sys.argv[:] = ["program.py"]
    site.setquit()  # `exit()` and `quit()`, without the packages of this machine
    Path("/proc/self/oom_score_adj").write_text("1000")  # if memory runs out all the same, this goes first
    with open(int(text), encoding="utf-8") as file:  # noqa: PTH123 (an open file has no path)
        program = file.read()
    for name, bound in json.loads(bounds).items():
        limit = getattr(resource, name)
        hard = resource.getrlimit(limit)[1]
        least = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(limit, (least, least))
    os.write(int(ready), b".")
    os.close(int(ready))
    return program


if __name__ == "__main__":
    # The program finds the module `__main__` as it would be alone, without a trace of this.
    exec(globals().pop("_program")())  # noqa: S102 (this is the inside of the box)

"""What a program may not do, done: it is contained, the caller goes on, and nothing is left behind."""

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from peftbench import sandbox
from peftbench.sandbox import NotContainedError, ResourceLimits, run_program

QUICK = ResourceLimits(
    seconds=5, cpu_seconds=2, memory_bytes=256 << 20, processes=8, file_bytes=1 << 20, output_bytes=100_000
)
"""The clock leaves room for a busy machine; no program here needs it, but those that sleep."""


def refusal() -> str:
    try:
        sandbox.mode()
    except NotContainedError as error:
        return str(error)
    return ""


boxed = pytest.mark.skipif(bool(refusal()), reason=f"needs a bubblewrap that works: {refusal()}")
not_root = pytest.mark.skipif(os.geteuid() == 0, reason="the limit on processes does not bind root")
MODES = [pytest.param("bwrap", marks=boxed), "rlimit"]


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(sandbox.SWITCH, request.param)
    return str(request.param)


@pytest.fixture
def word() -> Iterator[str]:
    """A word that the processes of a test carry; none of them outlives it."""
    name = f"left-behind-{os.urandom(8).hex()}"
    yield name
    deadline = time.monotonic() + 5
    while left := [path for path in Path("/proc").glob("[0-9]*/cmdline") if name in _content(path)]:
        assert time.monotonic() < deadline, f"{left} still run"
        time.sleep(0.05)


def _content(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


# ---- in both modes --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("mode")
class TestEither:
    def test_a_program_reads_and_prints(self) -> None:
        done = run_program("name = input()\nprint('Grüße an', name)", "Ann\n", QUICK)
        assert (done.status, done.stdout, done.stderr, done.exit_code) == ("ok", "Grüße an Ann\n", "", 0)
        assert 0 < done.seconds < 5
        assert run_program("print(len(open('/dev/stdin').read()))", "x" * 300_000, QUICK).stdout == "300000\n"

    @pytest.mark.parametrize(
        ("program", "code", "said"),
        [
            ("import sys; sys.exit(3)", 3, ""),
            ("exit(4)", 4, ""),
            ("raise ValueError('no')", 1, "ValueError: no"),
            ("def f(:", 1, "SyntaxError"),
            ("print(input())", 1, "EOFError"),
            ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 143, ""),
        ],
    )
    def test_a_program_that_fails(self, program: str, code: int, said: str) -> None:
        done = run_program(program, "", QUICK)
        assert (done.status, done.exit_code) == ("failed", code)
        assert said in done.stderr

    def test_a_program_is_main_and_sees_no_trace_of_its_keeper(self) -> None:
        program = """
import sys
print(sorted(n for n in dir() if n[:2] != '__'), __name__, sys.argv, sys.modules['__main__'].__dict__ is globals())
"""
        assert run_program(program, "", QUICK).stdout == "['sys'] __main__ ['program.py'] True\n"
        assert "NameError" in run_program("os", "", QUICK).stderr
        assert "No module named 'numpy'" in run_program("import numpy", "", QUICK).stderr

    def test_the_environment_is_not_ours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "a secret")
        assert "secret" not in run_program("import os; print(os.environ)", "", QUICK).stdout

    def test_sets_have_the_same_order_every_time(self) -> None:
        assert len({run_program("print({'ann', 'bo', 'cy', 'di', 'eve'})", "", QUICK).stdout for _ in range(4)}) == 1

    def test_processor_time_is_bounded(self) -> None:
        done = run_program("while True: pass", "", ResourceLimits(seconds=20, cpu_seconds=1))
        assert (done.status, done.exit_code) == ("failed", 137)
        assert done.seconds < 15

    def test_sleeping_through_signals(self, word: str) -> None:
        program = f"""
import os, signal, subprocess, sys, time
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
if not {word!r} in sys.argv:
    subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', {word!r}])
print('asleep', flush=True)
time.sleep(60)
"""
        started = time.monotonic()
        done = run_program(program, "", ResourceLimits(seconds=1.5))
        assert (done.status, done.stdout, done.exit_code) == ("timeout", "asleep\n", None)
        assert time.monotonic() - started < 5

    def test_what_is_started_in_the_background_ends_with_the_program(self, word: str) -> None:
        program = f"""
import subprocess, sys
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', {word!r}], stdout=-3, stderr=-3, stdin=-3)
"""
        assert run_program(program, "", QUICK).status == "ok"

    def test_closing_the_output_is_not_ending(self) -> None:
        done = run_program("import os, time\nos.close(1); os.close(2); time.sleep(60)", "", ResourceLimits(seconds=1))
        assert done.status == "timeout"

    @pytest.mark.parametrize("stream", [1, 2])
    def test_printing_without_end(self, stream: int) -> None:
        done = run_program(f"import os\nwhile True: os.write({stream}, b'x' * 1000)", "", QUICK)
        assert done.status == "overflow"
        assert 100_000 < len(done.stdout + done.stderr) < 400_000

    def test_memory_is_bounded(self) -> None:
        assert "MemoryError" in run_program("x = bytearray(1 << 29)", "", QUICK).stderr
        growing = run_program("x = []\nwhile True: x.append(bytearray(1 << 20))", "", QUICK)
        assert growing.status == "failed"
        assert "MemoryError" in growing.stderr

    def test_a_file_is_bounded(self) -> None:
        done = run_program("open('big', 'wb').write(b'0' * (1 << 21))", "", QUICK)
        assert done.status == "failed"
        assert "OSError" in done.stderr

    def test_the_folder_is_the_programs_own_and_goes_with_it(self) -> None:
        program = "import os\nopen('note', 'w').write('x'); print(os.listdir(), os.getcwd())"
        printed = run_program(program, "", QUICK).stdout
        assert printed.startswith("['note'] /tmp")
        assert run_program(program, "", QUICK).stdout.startswith("['note'] /tmp")
        assert not Path(printed.split()[-1], "note").exists()

    def test_input_that_nobody_reads_does_not_block(self) -> None:
        assert run_program("print('done')", "x" * 2_000_000, QUICK).stdout == "done\n"

    def test_waiting_for_a_pipe_that_nobody_fills(self) -> None:
        assert run_program("import os\nos.read(os.pipe()[0], 1)", "", ResourceLimits(seconds=1)).status == "timeout"

    def test_several_at_a_time(self) -> None:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda i: run_program(f"print({i} + int(input()))", str(i), QUICK).stdout, range(8)))
        assert found == [f"{2 * i}\n" for i in range(8)]

    def test_threads_are_there(self) -> None:
        program = "import threading\nt = threading.Thread(target=lambda: print('hello'))\nt.start(); t.join()"
        assert run_program(program, "", QUICK).stdout == "hello\n"


FORK_BOMB = """
import os, time
count = 0
while True:
    try:
        if os.fork() == 0:
            time.sleep(60)
        count += 1
    except OSError as error:
        print(count, error.errno, flush=True)
        os._exit(0)
"""


@not_root
def test_forking_without_end_by_an_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sandbox.SWITCH, "rlimit")
    assert run_program(FORK_BOMB, "", ResourceLimits(seconds=2, processes=8)).stdout.endswith(" 11\n")


# ---- in the box alone -----------------------------------------------------------------------------------------------


@boxed
class TestBox:
    def test_forking_without_end(self) -> None:
        count, errno = run_program(FORK_BOMB, "", QUICK).stdout.split()
        assert int(count) < 8
        assert errno == "11"
        started = time.monotonic()
        done = run_program(
            "import os\nwhile True: os.fork()", "", ResourceLimits(seconds=3, cpu_seconds=1, processes=8)
        )
        assert done.status in ("failed", "timeout")
        assert time.monotonic() - started < 10

    def test_a_process_that_leaves_its_group_ends_all_the_same(self, word: str) -> None:
        program = f"""
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for stream in range(3): os.close(stream)
        os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(60)', {word!r}])
    os._exit(0)
"""
        assert run_program(program, "", QUICK).status == "ok"

    @pytest.mark.parametrize(
        "place", ["/usr/x", "/etc/x", "/x", "/dev/x", "/dev/shm/x", "/proc/sys/kernel/hostname", "/var/tmp/x"]
    )
    def test_nothing_can_be_written_outside(self, place: str) -> None:
        done = run_program(f"open({place!r}, 'w').write('x')", "", QUICK)
        assert done.status == "failed"
        assert "Error" in done.stderr
        assert not place.endswith("/x") or not Path(place).exists()

    def test_its_files_and_the_repository_can_not_be_changed(self, tmp_path: Path) -> None:
        (tmp_path / "kept").write_text("kept")
        program = f"import os, shutil\nprint(os.path.exists({str(tmp_path)!r}))\nshutil.rmtree({str(tmp_path)!r})"
        done = run_program(program, "", QUICK)
        assert done.stdout == "False\n"
        assert (tmp_path / "kept").read_text() == "kept"
        shown = run_program("import os; print(os.path.exists(input()))", str(Path(__file__).parent), QUICK)
        assert shown.stdout == "False\n"

    def test_the_home_folder_is_not_there(self) -> None:
        secret = Path.home() / f".peftbench-test-{os.getpid()}"
        secret.write_text("a secret")
        try:
            done = run_program(f"print(open({str(secret)!r}).read())", "", QUICK)
        finally:
            secret.unlink()
        assert done.stdout == ""
        assert "FileNotFoundError" in done.stderr

    @pytest.mark.parametrize("place", ["/etc/passwd", "/etc/shadow", "/var", "/run", "/sys"])
    def test_the_systems_settings_are_not_there(self, place: str) -> None:
        assert run_program(f"import os; print(os.path.exists({place!r}))", "", QUICK).stdout == "False\n"

    def test_there_is_no_network(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            socket.create_connection(("127.0.0.1", port)).close()
            done = run_program(f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)", "", QUICK)
        assert done.status == "failed"
        assert "Error" in done.stderr
        interfaces = run_program(
            "print([line.split(':')[0].strip() for line in list(open('/proc/net/dev'))[2:]])", "", QUICK
        )
        assert interfaces.stdout == "['lo']\n"

    def test_no_process_of_ours_can_be_seen_or_killed(self) -> None:
        seen = run_program("import os; print(sum(name.isdigit() for name in os.listdir('/proc')))", "", QUICK)
        assert int(seen.stdout) <= 3
        assert "Error" in run_program(f"import os; os.kill({os.getpid()}, 9)", "", QUICK).stderr

    def test_the_disk_is_bounded_as_a_whole(self) -> None:
        program = "for i in range(100): open(str(i), 'wb').write(b'0' * (1 << 19))"
        done = run_program(program, "", QUICK)
        assert done.status == "failed"
        assert "No space left" in done.stderr

    def test_it_has_no_rights_and_cannot_get_any(self) -> None:
        status = run_program("print(open('/proc/self/status').read())", "", QUICK).stdout
        facts = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == 0
        assert int(facts["NoNewPrivs"]) == 1

    def test_its_input_can_not_be_changed(self) -> None:
        done = run_program("import os\nfd = os.open('/proc/self/fd/0', os.O_RDWR)\nos.write(fd, b'x')", "input", QUICK)
        assert done.status == "failed"
        assert "PermissionError" in done.stderr


# ---- refusing -------------------------------------------------------------------------------------------------------


def test_without_bubblewrap_nothing_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(sandbox.SWITCH, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotContainedError, match=r"not installed.*apt install bubblewrap.*PEFTBENCH_SANDBOX=rlimit"):
        run_program(f"open({str(tmp_path / 'run')!r}, 'w')")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("script", ["echo 'bwrap: no permissions to create a namespace' >&2; exit 1", "exec sleep 0"])
def test_a_bubblewrap_that_does_not_work_is_found_out(
    script: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text(f"#!/bin/sh\n{script}\n")
    broken.chmod(0o755)
    monkeypatch.delenv(sandbox.SWITCH, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(NotContainedError, match="did not start") as refused:
        sandbox.mode()
    assert ("no permissions" in str(refused.value)) == ("no permissions" in script)


def test_a_mode_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sandbox.SWITCH, "none")
    with pytest.raises(NotContainedError, match="'none': it must be bwrap or rlimit"):
        run_program("print(1)")


# ---- ways out of the box that are no files, no network and no signals ---------------------------------------------

LIBC = "import ctypes, os, socket\nlibc = ctypes.CDLL(None, use_errno=True)\n"
NUMBERS = {
    "x86_64": {"keyctl": 250, "add_key": 248, "request_key": 249, "bpf": 321, "userfaultfd": 323, "perf": 298}
    | {"io_uring_setup": 425, "setns": 308, "clone": 56, "clone3": 435, "memfd_secret": 447, "process_vm_readv": 310},
    "aarch64": {"keyctl": 219, "add_key": 217, "request_key": 218, "bpf": 280, "userfaultfd": 282, "perf": 241}
    | {"io_uring_setup": 425, "setns": 268, "clone": 220, "clone3": 435, "memfd_secret": 447, "process_vm_readv": 270},
}.get(os.uname().machine, {})


def call(name: str, arguments: str) -> str:
    return LIBC + f"print(libc.syscall({NUMBERS.get(name, -1)}, {arguments}), ctypes.get_errno())"


# What is tried, and the number of the error that it meets.
CLOSED = {
    "a user namespace in the box": (LIBC + "print(libc.unshare(0x10000000), ctypes.get_errno())", 1),
    "a mount namespace in the box": (LIBC + "print(libc.unshare(0x20000), ctypes.get_errno())", 1),
    "a child in a user namespace": (call("clone", "0x10000000 | 17, 0, 0, 0, 0"), 1),
    "a child by a call whose flags no filter sees": (call("clone3", "0, 0"), 38),
    "another process's namespace": (call("setns", "0, 0"), 1),
    "a mount": (LIBC + "print(libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, b''), ctypes.get_errno())", 1),
    "the init process of the box": (LIBC + "print(libc.ptrace(16, 1, 0, 0), ctypes.get_errno())", 1),
    "memory of a process": (call("process_vm_readv", "1, 0, 0, 0, 0, 0"), 1),
    "a key of the machine": (call("request_key", "b'user', b'n', 0, -3"), 1),
    "a key that is left": (call("add_key", "b'user', b'n', b'p', 1, -3"), 1),
    "the keyring of the session": (call("keyctl", "0, -3, 1"), 1),
    "a program in the kernel": (call("bpf", "0, 0, 0"), 1),
    "page faults": (call("userfaultfd", "0"), 1),
    "counters of events": (call("perf", "0, 0, -1, -1, 0"), 1),
    "a ring of calls": (call("io_uring_setup", "8, ctypes.create_string_buffer(200)"), 1),
    "memory without a process": (LIBC + "print(libc.memfd_create(b'x', 0), ctypes.get_errno())", 1),
    "secret memory without a process": (call("memfd_secret", "0"), 1),
    "shared memory of System V": (LIBC + "print(libc.shmget(4242, 1 << 28, 0o1666), ctypes.get_errno())", 1),
    "a queue of System V": (LIBC + "print(libc.msgget(4242, 0o1666), ctypes.get_errno())", 1),
    **{
        f"a socket of {family}": (
            f"import socket\ntry: print(socket.socket({number}, {kind}))\nexcept OSError as e: print(-1, e.errno)",
            97,
        )
        for family, number, kind in [
            ("vsock", 40, 1), ("netlink", 16, 3), ("packets", 17, 3), ("ciphers", 38, 5), ("Bluetooth", 31, 3)
        ]
    },
    "a higher limit": (
        "import resource\ntry: resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nexcept ValueError: print(-1, 1)",
        1,
    ),
    "the user root": ("import os\ntry: os.setuid(0); print(0)\nexcept PermissionError as e: print(-1, e.errno)", 1),
    "the group root": ("import os\ntry: os.setgroups([0]); print(0)\nexcept OSError as e: print(-1, e.errno)", 1),
}  # fmt: skip


@boxed
@pytest.mark.parametrize("what", CLOSED)
def test_what_is_closed(what: str) -> None:
    program, error = CLOSED[what]
    assert run_program(program, "", QUICK).stdout.split() == ["-1", str(error)]


def test_system_calls_are_filtered_in_the_weaker_mode_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sandbox.SWITCH, "rlimit")
    tried = {what: case for what, case in CLOSED.items() if "libc" in case[0] or "socket" in what}
    program = "\n".join(f"exec({program!r}, {{}})" for program, _ in tried.values())
    errors = [line.split() for line in run_program(program, "", QUICK).stdout.splitlines()]
    found = dict(zip(tried, errors, strict=True))
    assert found == {what: ["-1", str(error)] for what, (_, error) in tried.items()}


@boxed
@pytest.mark.parametrize(
    "place",
    [
        "/proc/sysrq-trigger",
        "/proc/kcore",
        "/dev/kmsg",
        "/proc/1/mem",
        "/proc/1/environ",
        "/sys/kernel",
        "/dev/mqueue",
    ],
)
def test_what_tells_of_the_machine_cannot_be_opened(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "a secret")
    done = run_program(f"print(len(open({place!r}, 'rb').read(1000)))", "", QUICK)
    assert (
        done.stdout in ("", "0\n") or "a secret" not in run_program(f"print(open({place!r}).read())", "", QUICK).stdout
    )
    assert place == "/proc/1/environ" or "Error" in done.stderr


@boxed
def test_the_keys_of_its_caller_are_not_the_programs() -> None:
    if os.uname().machine not in ("x86_64", "aarch64"):
        pytest.skip("no numbers of system calls for this machine")
    name = f"peftbench-test-{os.getpid()}"
    program = f"""
import ctypes, sys, subprocess
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall({NUMBERS["keyctl"]}, 1, None)
key = libc.syscall({NUMBERS["add_key"]}, b'user', b'{name}', b'a secret', 8, -3)
if key < 0: sys.exit(77)
from peftbench.sandbox import run_program
print({name!r} in open('/proc/keys').read(), {name!r} in run_program("print(open('/proc/keys').read())").stdout)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("this kernel, or what contains this test, keeps no keys")
    assert done.stdout == "True False\n", done.stderr


@boxed
def test_an_abstract_socket_of_the_machine_is_not_there() -> None:
    name = f"\0peftbench-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        done = run_program(f"import socket\nsocket.socket(socket.AF_UNIX).connect({name!r})", "", QUICK)
    assert "ConnectionRefusedError" in done.stderr


@pytest.mark.usefixtures("mode")
class TestTogether:
    """What all processes of a program use together is bounded, not only what each does."""

    def test_memory(self) -> None:
        program = "import os, time\nfor _ in range(2): os.fork()\nx = bytearray(100 << 20)\ntime.sleep(60)"
        limits = ResourceLimits(seconds=50, memory_bytes=256 << 20, resident_bytes=300 << 20, processes=8)
        assert run_program(program, "", limits).status == "overflow"

    def test_memory_that_one_process_may_have(self) -> None:
        program = "x = bytearray(150 << 20)\nprint(len(x) >> 20)"
        assert run_program(program, "", ResourceLimits(resident_bytes=300 << 20)).stdout == "150\n"


@boxed
def test_processor_time_of_all_processes_is_bounded() -> None:
    program = "import os\nfor _ in range(2): os.fork()\nwhile True: pass"
    started = time.monotonic()
    done = run_program(program, "", ResourceLimits(seconds=60, cpu_seconds=1, processes=8))
    assert (done.status, done.exit_code) == ("failed", 137)
    assert time.monotonic() - started < 50


@boxed
def test_the_number_of_files_is_bounded() -> None:
    program = "import os, time\nfor i in range(3000): os.mkdir(str(i))\ntime.sleep(60)"
    assert run_program(program, "", ResourceLimits(seconds=50, files=2000)).status == "overflow"
    assert run_program("import os\nfor i in range(100): os.mkdir(str(i))\nprint('made')", "", QUICK).stdout == "made\n"


@boxed
def test_a_user_namespace_is_refused_by_bubblewrap_itself_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user's box; root's has no user namespace of its own, and the filter of system calls alone."""
    from peftbench.sandbox import box

    monkeypatch.setattr(box, "is_machine_root", lambda: False)
    line, _ = box.command("bwrap", QUICK)
    told = subprocess.run(["bwrap", "--help"], capture_output=True, text=True, check=False).stdout
    assert ("--disable-userns" in line) == ("--disable-userns" in told)


def test_the_filter_is_for_machines_that_are_known() -> None:
    from peftbench.sandbox.seccomp import ARCHITECTURES, REFUSED, filter_of

    for machine in ARCHITECTURES:
        steps = list(struct.iter_unpack("HBBI", filter_of(machine)))
        assert all(1 + place + max(yes, no) < len(steps) for place, (_, yes, no, _) in enumerate(steps) if yes or no)
        assert steps[-1][:1] == (6,)
    numbers = [[pair[i] for pair in REFUSED.values() if pair[i] is not None] for i in (0, 1)]
    assert all(len(set(each)) == len(each) for each in numbers)
    with pytest.raises(ValueError, match=r"no list of system calls for pdp11"):
        filter_of("pdp11")

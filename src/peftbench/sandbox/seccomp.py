"""The system calls that a program in the sandbox must not make, as a kernel filter (seccomp, classic BPF).

The filter is a deny list; calls that the standard library needs are allowed. Denied are access to memory and folders
without a limit, to other processes and to the machine's keys, and parts of the kernel that programs under test do not
use and that contain most of its vulnerabilities.
"""

import errno
import struct

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""The kernel's constants (`AUDIT_ARCH_*`) of the supported machines."""

# Number on x86_64, number on aarch64; None where the call does not exist.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    # Namespaces and mounts: a nested user namespace could mount a folder without a size limit.
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    # Memory that does not belong to a process: limits on processes do not include it.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "vmsplice": (278, 75),
    # Keys of the kernel.
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # Other processes.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    # Large parts of the kernel that no program of the standard library needs.
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    "iopl": (172, None),
    "ioperm": (173, None),
    "uselib": (134, None),
    # The machine as a whole; these need rights that a program does not have.
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
}
SOCKET, CLONE, CLONE3 = (41, 198), (56, 220), (435, 435)
FAMILIES = (1, 2, 10)
"""Allowed socket families: Unix and internet, which the sandbox isolates. Others, such as vsock, are not isolated."""
NEW_NAMESPACES = 0x7E020000
"""The flags of `clone` that make namespaces."""
X32 = 0x40000000
"""Start of the second set of call numbers on x86_64 (x32)."""
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
ALLOW, KILL = 0x7FFF0000, 0x80000000


def _refuse(error: int) -> int:
    return 0x00050000 | error


def filter_of(machine: str) -> bytes:
    """Return the filter for a machine (`os.uname().machine`) as `struct sock_filter[]`. Raises `ValueError`."""
    if machine not in ARCHITECTURES:
        raise ValueError(f"there is no list of system calls for {machine}: {' and '.join(ARCHITECTURES)} have one")
    place = list(ARCHITECTURES).index(machine)
    # Each step: opcode, operand, number of steps to skip if true, and if false.
    steps = [(LOAD, ARCHITECTURE, 0, 0), (EQUAL, ARCHITECTURES[machine], 1, 0), (RETURN, KILL, 0, 0)]
    steps += [(LOAD, NUMBER, 0, 0)]
    if machine == "x86_64":
        steps += [(AT_LEAST, X32, 0, 1), (RETURN, _refuse(errno.ENOSYS), 0, 0)]
    for numbers in REFUSED.values():
        number = numbers[place]
        if number is not None:
            steps += [(EQUAL, number, 0, 1), (RETURN, _refuse(errno.EPERM), 0, 0)]
    # Its flags are in memory, which a filter cannot read; the C library falls back to `clone`.
    steps += [(EQUAL, CLONE3[place], 0, 1), (RETURN, _refuse(errno.ENOSYS), 0, 0)]
    steps += [(EQUAL, CLONE[place], 0, 4), (LOAD, FIRST_ARGUMENT, 0, 0), (ANY_BIT, NEW_NAMESPACES, 0, 1)]
    steps += [(RETURN, _refuse(errno.EPERM), 0, 0), (RETURN, ALLOW, 0, 0)]
    steps += [(EQUAL, SOCKET[place], 0, 5), (LOAD, FIRST_ARGUMENT, 0, 0)]
    steps += [(EQUAL, family, len(FAMILIES) - i, 0) for i, family in enumerate(FAMILIES)]
    steps += [(RETURN, _refuse(errno.EAFNOSUPPORT), 0, 0), (RETURN, ALLOW, 0, 0)]
    return b"".join(struct.pack("HBBI", code, yes, no, value) for code, value, yes, no in steps)

"""The packages can be imported on Windows: what only POSIX has is imported and used behind a question.

The names are those that the documentation of Python's modules marks with "Availability: Unix" or that Windows gets
only from a later Python than 3.10.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("slm", "export", "runtimes", "benchmarks")
# Commands that measure Linux, with its /proc, qemu or Debian's packages. They must be importable everywhere too.
LINUX_ONLY = (
    "benchmarks/documents/terminal_picture.py",
    "benchmarks/container/",
    "benchmarks/pi/",
    "benchmarks/serving/",
    "benchmarks/studies/",
)
POSIX_MODULES = {
    *("crypt", "curses", "fcntl", "grp", "nis", "posix", "pty", "pwd", "readline", "resource", "spwd", "syslog"),
    *("termios", "tty"),
}
POSIX_NAMES = {
    "os": {
        *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "WEXITSTATUS", "WIFSIGNALED", "WNOHANG"),
        *("chown", "chroot", "confstr", "copy_file_range", "ctermid", "eventfd", "fchdir", "fchmod", "fchown", "fork"),
        *("forkpty", "fpathconf", "fstatvfs", "getegid", "geteuid", "getgid", "getgroups", "getloadavg", "getpgid"),
        *("getpgrp", "getpriority", "getresuid", "getsid", "getuid", "initgroups", "killpg", "lchown", "lockf"),
        *("memfd_create", "mkfifo", "mknod", "nice", "openpty", "pathconf", "pidfd_open", "pipe2", "posix_fadvise"),
        *("posix_fallocate", "posix_spawn", "pread", "preadv", "pwrite", "pwritev", "readv", "register_at_fork"),
        *("sched_getaffinity", "sched_setaffinity", "sched_yield", "sendfile", "set_blocking", "setgid", "setpgid"),
        *("setpriority", "setsid", "setuid", "splice", "statvfs", "sync", "sysconf", "tcgetpgrp", "ttyname", "uname"),
        *("wait", "wait3", "wait4", "waitid", "writev"),
    },
    "signal": {
        *("ITIMER_REAL", "SIGALRM", "SIGBUS", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGPROF"),
        *("SIGQUIT", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGUSR1", "SIGUSR2", "SIGWINCH"),
        *("alarm", "pause", "pthread_kill", "pthread_sigmask", "setitimer"),
        *("siginterrupt", "sigpending", "sigtimedwait", "sigwait"),
    },
    "mmap": {
        "MADV_DONTNEED",
        "MADV_NOHUGEPAGE",
        "MAP_PRIVATE",
        "MAP_SHARED",
        "PROT_READ",
        "PROT_WRITE",
    },
    "socket": {"AF_UNIX", "SO_REUSEPORT", "socketpair", "sethostname"},
    "time": {"CLOCK_MONOTONIC", "clock_gettime", "pthread_getcpuclockid", "tzset"},
}
TEXT_MODES = {"r", "w", "a", "x", "rt", "wt", "at", "xt", "r+", "w+", "a+"}

Scopes = tuple[ast.AST, ...]


def every_module() -> list[Path]:
    found = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    assert len(found) > 100
    return [path for path in found if "node_modules" not in path.parts]


def nodes(tree: ast.AST, scopes: Scopes = ()) -> Iterator[tuple[ast.AST, Scopes]]:
    """Every node with the nodes that it is in, the outermost first."""
    for child in ast.iter_child_nodes(tree):
        yield child, scopes
        yield from nodes(child, (*scopes, child))


def in_function(scopes: Scopes) -> bool:
    return any(isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) for scope in scopes)


def is_question(node: ast.AST, name: str) -> bool:
    """Whether a condition asks for the system, or for a name."""
    asked = ast.unparse(node)
    return "sys.platform" in asked or "os.name" in asked or f"'{name}'" in asked


def is_asked(node: ast.AST, scopes: Scopes, name: str) -> bool:
    """Whether a use of a name is behind a question: around it, in a handler, or before it in its function."""
    for scope in scopes:
        if isinstance(scope, ast.If | ast.IfExp) and is_question(scope.test, name):
            return True
        if isinstance(scope, ast.Try) and any(is_missing(handler.type) for handler in scope.handlers):
            return True
        if isinstance(scope, ast.With) and any(is_missing(item.context_expr) for item in scope.items):
            return True
    function = next((scope for scope in reversed(scopes) if isinstance(scope, ast.FunctionDef)), None)
    line = getattr(node, "lineno", 0)
    before = [other for other in ast.walk(function or node) if getattr(other, "lineno", line) < line]
    return any(
        (
            isinstance(other, ast.If)
            and is_question(other.test, name)
            and isinstance(other.body[-1], ast.Return | ast.Raise)
        )
        or (isinstance(other, ast.IfExp) and f"'{name}'" in ast.unparse(other.test))
        for other in before
    )


def is_missing(node: ast.AST | None) -> bool:
    """Whether an expression names the error for what is not there."""
    return node is not None and any(name in ast.unparse(node) for name in ("AttributeError", "ImportError"))


def posix_imports(tree: ast.AST) -> list[str]:
    """Imports of modules that Windows lacks: at the top level, or in a function that does not ask."""
    found = []
    for node, scopes in nodes(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        posix = POSIX_MODULES & {name.split(".")[0] for name in names}
        if posix and not is_asked(node, scopes, ""):
            found.append(f"{min(posix)}{'' if in_function(scopes) else ' at the top level'}")
    return found


def posix_names(tree: ast.AST) -> list[str]:
    """Uses of names that Windows lacks, where nothing asks for them."""
    return [
        f"{node.value.id}.{node.attr}{'' if in_function(scopes) else ' at the top level'}"
        for node, scopes in nodes(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.attr in POSIX_NAMES.get(node.value.id, ())
        and not is_asked(node, scopes, node.attr)
    ]


def careless_text(tree: ast.AST) -> list[str]:
    """Calls that read or write text in the encoding of the system, or write with its ends of lines."""
    found = []
    for node, _ in nodes(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = {word.arg for word in node.keywords}
        if name == "read_text" and not node.args and "encoding" not in given:
            found.append(ast.unparse(node))
        if name == "write_text" and not ((len(node.args) > 1 or "encoding" in given) and "newline" in given):
            found.append(ast.unparse(node))
        modes = [
            value.value
            for value in [*node.args, *(word.value for word in node.keywords if word.arg == "mode")]
            if isinstance(value, ast.Constant) and value.value in TEXT_MODES
        ]
        opens = name in ("open", "fdopen") and (modes or isinstance(node.func, ast.Name))
        binary = any(isinstance(value, ast.Constant) and "b" in str(value.value)[:3] for value in node.args[1:2])
        if opens and not binary and not ("encoding" in given and (not modes or "r" in modes[0] or "newline" in given)):
            found.append(ast.unparse(node))
    return found


def faults(path: Path, tree: ast.AST) -> list[str]:
    found = posix_imports(tree) + posix_names(tree)
    if path.relative_to(ROOT).as_posix().startswith(LINUX_ONLY):
        found = [fault for fault in found if fault.endswith("at the top level")]
    return found + careless_text(tree)


def test_no_module_needs_posix_or_the_encoding_of_the_system() -> None:
    found = {path: faults(path, ast.parse(path.read_text("utf-8"))) for path in every_module()}
    assert {path.relative_to(ROOT).as_posix(): lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("import resource", "resource at the top level"),
        ("from fcntl import flock", "fcntl at the top level"),
        ("def f():\n    import pwd", "pwd"),
        ("import os\nCORES = os.sched_getaffinity(0)", "os.sched_getaffinity at the top level"),
        ("import signal\ndef f():\n    return signal.SIGKILL", "signal.SIGKILL"),
        ("def f():\n    os.set_blocking(1, False)\n    if hasattr(os, 'fork'):\n        pass", "os.set_blocking"),
        ("def f():\n    if hasattr(os, 'fork'):\n        os.set_blocking(1, False)", "os.set_blocking"),
        ("path.read_text()", "path.read_text()"),
        ("path.write_text('a', 'utf-8')", "path.write_text('a', 'utf-8')"),
        ("path.open('w', encoding='utf-8')", "path.open('w', encoding='utf-8')"),
        ("open(name)", "open(name)"),
    ],
)
def test_the_faults_that_are_looked_for(source: str, fault: str) -> None:
    assert faults(ROOT / "slm" / "a.py", ast.parse(source)) == [fault]


@pytest.mark.parametrize(
    "source",
    [
        "try:\n    import resource\nexcept ImportError:\n    resource = None",
        "import os\nCORES = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1",
        "def f():\n    with suppress(AttributeError):\n        os.sysconf('SC_PHYS_PAGES')",
        "def f():\n    if sys.platform == 'win32':\n        return\n    import fcntl",
        "path.read_text('ascii')\npath.write_text('a', 'utf-8', newline='\\n')",
        "path.open('rb')\nopen(name, 'wb')\nopen(name, encoding='utf-8')\nBundle.open(path)",
    ],
)
def test_what_is_right(source: str) -> None:
    assert faults(ROOT / "slm" / "a.py", ast.parse(source)) == []

"""Shared fixtures, and `--strict-skips`: a test that is skipped without being listed fails the session."""

import os
import pathlib
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest

pytest_plugins = ["pytester"]
ALLOWED_SKIPS = pathlib.Path(__file__).with_name("allowed_skips.txt")


def pytest_addoption(parser):
    parser.addoption(
        "--strict-skips", action="store_true", help="fail when a test is skipped that allowed_skips.txt does not list"
    )


def pytest_configure(config):
    # A shell without job control starts what is in the background deaf to Ctrl-C, which tests send.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--strict-skips"):
        config.pluginmanager.register(StrictSkips(ALLOWED_SKIPS.read_text()), "strict-skips")


def pytest_report_header():
    return f"keras {keras.__version__}, backend {keras.backend.backend()}"


class StrictSkips:
    """Collects the skips of a session and compares them with the list, one `test-id-prefix: reason` a line."""

    def __init__(self, text):
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        self.allowed = [tuple(part.strip() for part in line.split(": ", 1)) for line in lines]
        self.unlisted = []

    def _record(self, report):
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(report.nodeid.startswith(prefix) and allowed in reason for prefix, allowed in self.allowed):
            self.unlisted.append(f"{report.nodeid}: {reason}")

    pytest_runtest_logreport = _record
    pytest_collectreport = _record

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        if self.unlisted and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        if self.unlisted:
            terminalreporter.section("skips that tests/allowed_skips.txt does not list")
            for line in self.unlisted:
                terminalreporter.line(line)


@pytest.fixture(autouse=True)
def _reproducible():
    """Every test draws the same numbers, in whatever order the tests run."""
    keras.utils.set_random_seed(0)

"""Shared fixtures, and two options.

`--strict-skips`: a test that is skipped without being listed fails the session. `--record FILE`: what ran, where, how
long and with which result, as JSON.
"""

import datetime
import os
import pathlib
import signal
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest

pytest_plugins = ["pytester"]
ALLOWED_SKIPS = pathlib.Path(__file__).with_name("allowed_skips.txt")
LONG_TESTS = pathlib.Path(__file__).with_name("long_tests.txt")


def pytest_addoption(parser):
    parser.addoption(
        "--strict-skips", action="store_true", help="fail when a test is skipped that allowed_skips.txt does not list"
    )
    parser.addoption("--record", metavar="FILE", help="write results, seconds and hardware of the session as JSON")


def pytest_configure(config):
    # A shell without job control starts what is in the background deaf to Ctrl-C, which tests send.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--strict-skips"):
        config.pluginmanager.register(StrictSkips(ALLOWED_SKIPS.read_text()), "strict-skips")
    # With pytest-xdist the main process receives the reports of all workers.
    if config.getoption("--record") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Record(config.getoption("--record")), "record")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks the tests that `long_tests.txt` lists: files, tests, or single cases of tests."""
    lines = (line.partition("#")[0].strip() for line in LONG_TESTS.read_text().splitlines())
    listed = {line for line in lines if line}
    for item in items:
        test = item.nodeid.partition("[")[0]
        if not listed.isdisjoint((item.nodeid, test, test.partition("::")[0])):
            item.add_marker(pytest.mark.long)


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


class Record:
    """Collects the results of a session and writes them: counts, failures, skips, the slowest tests."""

    slowest = 50

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.start = time.monotonic()
        self.seconds, self.skips, self.failed, self.passed = {}, {}, [], 0

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed.append(report.nodeid)
        elif report.skipped:
            self.pytest_collectreport(report)
        elif report.when == "call":
            self.passed += 1

    def pytest_collectreport(self, report):
        if report.skipped:
            reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.skips[report.nodeid] = reason.removeprefix("Skipped: ")
        elif report.failed:
            self.failed.append(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        from keras_vit.training.reports import run_record as record

        ranked = sorted(self.seconds.items(), key=lambda item: -item[1])[: self.slowest]
        content = {
            "date": datetime.date.today().isoformat(),
            "arguments": [part for part in session.config.invocation_params.args if str(self.path) not in part],
            **record.code(),
            "hardware": record.hardware(),
            "seconds": round(time.monotonic() - self.start, 1),
            "passed": self.passed,
            "failed": sorted(set(self.failed)),
            "skipped": self.skips,
            "slowest": {name: round(seconds, 1) for name, seconds in ranked},
        }
        record.write_json(self.path, content)


@pytest.fixture(autouse=True)
def _reproducible():
    """Every test draws the same numbers, in whatever order the tests run."""
    keras.utils.set_random_seed(0)
